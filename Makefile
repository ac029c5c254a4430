# `make` alone lists what there is to do.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Every tool, the CDK CLI's Node.js included, is a pinned package inside this folder.
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/node_modules/.bin:$(PATH):/usr/sbin:/sbin
# The command line neither asks for newer versions of itself nor reports its use.
export CDK_DISABLE_VERSION_CHECK := 1
export CDK_DISABLE_CLI_TELEMETRY := true

PYTHON ?= python3
# A sandbox is the stage of this name: make diff ENV=dev POSTERN_SUFFIX=anna
STAGE = $(ENV)$(addprefix -,$(POSTERN_SUFFIX))
# What `make review` compares with, and where it writes a pull request's comment, if anywhere.
BASE ?= HEAD
MARKDOWN ?=
# In how many availability zones `make try` has a host.
ZONES ?= 1
# For how many minutes a deployment may settle before its gate closes.
SETTLE ?= 15
SOURCES := app.py bench lab ops review stacks tests user_data
LAB_PACKAGES := dnsmasq-base iproute2 mmdebstrap nftables systemd-container
# A machine that has just started may be upgrading itself: its lock is waited for.
APT_GET := DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 -o DPkg::Lock::Timeout=300

## The main job
.PHONY: try
try: .venv/.installed .venv-cloud/.installed node_modules/.installed lab-packages ## Deploy into an emulated AWS, boot, send a mail, show what two receivers say; ZONES=3: from three hosts
	postern lab try --zones '$(ZONES)'

.PHONY: rollback
rollback: .venv/.installed .venv-cloud/.installed node_modules/.installed lab-packages ## Deploy while DNS holds another DKIM key: the host signals failure, the deployment rolls back
	postern lab rollback

.PHONY: faults
faults: .venv/.installed .venv-cloud/.installed node_modules/.installed lab-packages ## Harm host, volume, network, receivers and AWS under a stream of mail, and account for every message
	postern lab faults --report docs/reliability-figures.md

# A bench: make bench RUNS=5 WORKLOADS=many-50ms,big-50ms QUEUES=1000 CONTENDERS=postern,postfix-tuned ADD=--add
RUNS ?= 5
WORKLOADS ?=
QUEUES ?=
CONTENDERS ?=
ADD ?=
BENCH_OPTIONS = --runs $(RUNS) $(ADD) $(addprefix --workloads ,$(WORKLOADS)) $(addprefix --queues ,$(QUEUES)) \
    $(addprefix --contenders ,$(CONTENDERS))
.PHONY: bench
bench: .venv/.installed .venv-cloud/.installed node_modules/.installed lab-packages ## Delivered messages per second beside Postfix and Exim, into docs/performance/ (on a quiet machine)
	python3 -m bench $(BENCH_OPTIONS)

## Tests
.PHONY: test
test: lint .venv-cloud/.installed node_modules/.installed lab-packages ## Everything, the lab included (root on Debian 12 or 13)
	@postern lab fit
	pytest -m 'not lab' --numprocesses auto --dist loadfile
	pytest -m lab --numprocesses 2 --dist loadfile --no-loadscope-reorder --maxfail 10

.PHONY: check
check: lint node_modules/.installed ## What needs no root: settings, stacks, snapshots, cdk-nag, handlers, linters (about a minute)
	pytest -m 'not lab and not slow' --numprocesses auto --dist loadfile

.PHONY: lint
lint: .venv/.installed
	ruff format --check --quiet $(SOURCES)
	ruff check --quiet $(SOURCES)
	mypy $(SOURCES)
	check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	zizmor --offline --quiet --persona=auditor .github

.PHONY: snapshots
snapshots: .venv/.installed ## Write the reviewed templates anew: tests/snapshots/ENVIRONMENT/
	python3 -m review.snapshots

## Templates
.PHONY: synth
synth: .venv/.installed node_modules/.installed ## Write every environment's templates to cdk.out/
	rm -rf cdk.out
	cdk synth --quiet

.PHONY: diff
diff: named .venv/.installed node_modules/.installed ## What a deployment would change: make diff ENV=prod
	cdk --context environment='$(ENV)' diff '$(STAGE)/*'

.PHONY: deploy
deploy: named .venv/.installed node_modules/.installed ## Deploy one environment: make deploy ENV=prod
	cdk --context environment='$(ENV)' deploy '$(STAGE)/*'

# The users of an address go before it does: SPF names it as long as mail leaves from it.
.PHONY: shrink
shrink: named .venv/.installed node_modules/.installed ## Deploy a file that has fewer zones than before, drained by `postern zones drain`: make shrink ENV=prod
	postern zones leaving --environment '$(ENV)'
	rm -rf cdk.out
	cdk --context environment='$(ENV)' synth --quiet
	cdk --app cdk.out deploy --exclusively '$(STAGE)/MailHosts'
	cdk --app cdk.out deploy --exclusively '$(STAGE)/Network'
	cdk --app cdk.out deploy '$(STAGE)/*'

.PHONY: named
named:
	@[[ -n "$(ENV)" ]] || { echo "Name the environment: ENV=NAME, one of" $(basename $(notdir $(wildcard environments/*.toml))) >&2; exit 1; }

## Deliveries: what the workflows in .github/ run, after make synth, with an environment's credentials
.PHONY: install
install: .venv/.installed node_modules/.installed ## What the targets below need

.PHONY: built-diff
built-diff: named install ## What cdk.out would change; fails when permissions broaden, and when it cannot tell
	cdk --app cdk.out diff --method=template --fail-on=broadening '$(ENV)/*'

.PHONY: built-deploy
built-deploy: named install ## Deploy cdk.out as it was built, without a question
	cdk --app cdk.out deploy --require-approval=never '$(ENV)/*'

.PHONY: gate
gate: named install ## Whether the next environment may follow: postern doctor, given time to settle
	postern doctor --environment '$(ENV)' --json --settle $(SETTLE) --without Blocklists

.PHONY: review
review: .venv/.installed node_modules/.installed ## What a change means, in words, and whether it loses anything: make review BASE=origin/main
	@postern review --base '$(BASE)' $(if $(MARKDOWN),--markdown '$(MARKDOWN)')

## Housekeeping
.PHONY: release
release: .venv/.installed node_modules/.installed ## Keep this version's templates in lab/releases/, for the test that updates from them; then raise the version in pyproject.toml
	rm -rf cdk.out
	env --unset=POSTERN_SUFFIX cdk --context environment=lab synth --quiet
	python3 -m lab.release cdk.out

.PHONY: clean
clean: ## Remove what make installed and built here (the lab's images in /var/cache/postern stay)
	rm -rf .venv .venv-cloud node_modules cdk.out .lab .mypy_cache .pytest_cache .ruff_cache *.egg-info

.PHONY: help
help:
	@awk -F ':.*## ' '/^## /{print "\n" substr($$0, 4)} /^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.installed: requirements.txt requirements-dev.txt constraints.txt pyproject.toml | venv-module
	$(PYTHON) -m venv --clear .venv
	pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt --constraint constraints.txt
	pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.venv-cloud/.installed: lab/cloud/requirements.txt | venv-module
	$(PYTHON) -m venv --clear .venv-cloud
	.venv-cloud/bin/pip install --quiet --disable-pip-version-check --requirement lab/cloud/requirements.txt
	touch $@

node_modules/.installed: package.json package-lock.json .venv/.installed
	npm ci --no-audit --no-fund --loglevel=error
	touch $@

# Only what is missing is installed, and only by root on Debian; elsewhere it is said what is needed.
ROOT_ON_DEBIAN := $$(id -u) == 0 && -e /etc/debian_version

.PHONY: venv-module
venv-module:
	@if [[ $(ROOT_ON_DEBIAN) ]] && ! $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
	    $(APT_GET) update; \
	    $(APT_GET) install --yes --no-install-recommends python3-venv; \
	fi
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is missing; as root: apt-get install python3-venv" >&2; exit 1; }

.PHONY: lab-packages
lab-packages:
	@installed=$$(dpkg-query --show --showformat='$${db:Status-Abbrev}\n' $(LAB_PACKAGES) 2>/dev/null | grep -c '^ii' || true); \
	if [[ $(ROOT_ON_DEBIAN) && $$installed != $(words $(LAB_PACKAGES)) ]]; then \
	    $(APT_GET) update; \
	    $(APT_GET) install --yes --no-install-recommends $(LAB_PACKAGES); \
	fi
