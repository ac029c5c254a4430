"""`postern port25-request`: what to write to AWS so that it opens port 25.

https://repost.aws/knowledge-center/ec2-port-25-throttle
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from enum import StrEnum
from string import Template
from typing import Annotated, Final

import typer
from rich.console import Console

from ops.command_lines import cdk_deploy, postern
from ops.deployment import CannotTell, Deployment
from ops.options import EnvironmentName, Json, told_errors
from ops.port25_claims import Claim, claims
from ops.verdicts import EXIT_STATUS, Finding, Verdict, as_json, overall, show

FORM: Final = "https://console.aws.amazon.com/support/contacts?#/rdns-limits"


class Language(StrEnum):
    ENGLISH = "en"
    KOREAN = "ko"
    BOTH = "both"


_CLAIMS: Final[dict[Language, dict[str, str]]] = {
    Language.ENGLISH: {
        "no-inbound": "The mail hosts accept no connection from anywhere: their security group has "
        "no inbound rule, so nobody can relay mail through them.",
        "own-senders": "Our applications submit mail on the host itself, and it is refused unless "
        "its sender is an address in $domain.",
        "spf": "SPF authorises these addresses and nothing else: $record",
        "dkim": "The DKIM key, 2048 bits, is published at $name.",
        "signed": "Every message is signed with DKIM before it leaves; one that cannot be signed "
        "stays on the host.",
        "dmarc": "DMARC is published with strict alignment and p=$policy; reports go to $reports.",
        "bounces": "Bounces are forwarded to $postmaster.",
        "suppressions": "A recipient whose server says that there is no such mailbox is put on a "
        "suppression list and gets no more mail for $days days.",
        "alarms": "An alarm warns us when $warning % of an hour's mail bounces, and a second, "
        "critical one at $critical %.",
    },
    Language.KOREAN: {
        "no-inbound": "메일 호스트는 외부에서 들어오는 연결을 일절 받지 않습니다. 보안 그룹에 "
        "인바운드 규칙이 없으므로 제삼자가 이 서버를 거쳐 메일을 중계할 수 없습니다.",
        "own-senders": "메일은 같은 호스트에서 실행되는 당사 애플리케이션만 접수하며, 발신 주소가 "
        "$domain 도메인이 아니면 거부됩니다.",
        "spf": "SPF 레코드는 위 주소만 허용하고 나머지는 모두 거부합니다: $record",
        "dkim": "2048비트 DKIM 공개 키가 ${name}에 게시되어 있습니다.",
        "signed": "모든 메일은 DKIM 서명 후에 발송되며, 서명할 수 없는 메일은 호스트에 남습니다.",
        "dmarc": "엄격한 정렬(strict alignment)과 p=$policy 정책으로 DMARC 레코드를 게시했으며, "
        "보고서는 $reports 주소로 받습니다.",
        "bounces": "반송 메일은 $postmaster 주소로 전달됩니다.",
        "suppressions": "수신 서버가 존재하지 않는 사서함이라고 응답한 수신자는 발송 제외 "
        "목록에 등록되어 ${days}일 동안 메일이 발송되지 않습니다.",
        "alarms": "한 시간 동안의 반송률이 $warning %에 이르면 경고 경보가, $critical %에 이르면 "
        "심각 경보가 발생합니다.",
    },
}

_TEXT: Final[dict[Language, str]] = {
    Language.ENGLISH: """\
Please remove the restriction on outbound port 25 in $region for account $account.

WHAT WE SEND
$use_case

WHERE IT COMES FROM
Our own mail server on EC2, behind NAT gateways. Its host name, HELO name, sender domain and reverse
DNS are one name, $domain.
Elastic IPs and their reverse DNS:
$addresses

HOW WE PREVENT UNWANTED MAIL
$claims
Complaints about this mail reach us at $postmaster.
""",
    Language.KOREAN: """\
계정 ${account}의 $region 리전에서 아웃바운드 25번 포트 제한을 해제해 주시기 바랍니다.

발송하는 메일
$use_case

발송 위치
NAT 게이트웨이 뒤의 EC2에서 직접 운영하는 메일 서버입니다. 호스트 이름, HELO 이름, 발신 도메인,
역방향 DNS가 모두 같은 이름($domain)입니다.
탄력적 IP 주소와 역방향 DNS:
$addresses

원치 않는 메일을 방지하는 방법
$claims
이 메일에 대한 불만이나 신고는 $postmaster 주소에서 받습니다.
""",
}

_STEPS: Final[dict[Language, tuple[str, ...]]] = {
    Language.ENGLISH: (
        "Sign in to the AWS console with account $account.",
        "Open the form “Request to remove email sending limitations”: $form",
        "Enter an email address that you read: the answer goes there.",
        "Paste the text above into the description of your use case.",
        "Where the form asks for Elastic IP addresses, enter $addresses.",
        "Where it asks for reverse DNS records, enter $domain.",
        "Submit it. The answer takes a day or two, and may be a refusal or a question.",
        "Answer that with more detail about recipients, consent and volume.",
        "When port 25 is open, for this account and Region only, run: $doctor",
    ),
    Language.KOREAN: (
        "AWS 콘솔에 로그인합니다(계정 $account).",
        "“Request to remove email sending limitations” 양식을 엽니다: $form",
        "답변을 받을 이메일 주소를 입력합니다.",
        "위의 글을 사용 사례 설명란에 붙여 넣습니다.",
        "탄력적 IP 주소를 묻는 칸에는 다음을 입력합니다: $addresses",
        "역방향 DNS 레코드를 묻는 칸에는 다음을 입력합니다: $domain",
        "양식을 제출합니다. 답변은 하루나 이틀 뒤에 오며, 거절이나 추가 질문일 수 있습니다.",
        "그때는 수신자, 수신 동의, 발송량을 더 자세히 적어 답합니다.",
        "이 계정과 이 리전의 25번 포트가 열리면 다음을 실행합니다: $doctor",
    ),
}

# In characters; a Korean one is as wide as two others.
_NO_BREAK: Final = "\N{NO-BREAK SPACE}"
_WIDTHS: Final = {Language.ENGLISH: 96, Language.KOREAN: 60}
_HEADINGS: Final = {Language.ENGLISH: "WHAT TO DO", Language.KOREAN: "진행 순서"}


def request(
    name: EnvironmentName,
    language: Annotated[
        Language, typer.Option(help="Of the text and the steps")
    ] = Language.ENGLISH,
    as_json_: Json = False,
) -> None:
    """Write the request to open port 25, with nothing in it that is not deployed so."""
    with told_errors(as_json=as_json_):
        deployment = Deployment.load(name)
        addresses = deployed_addresses(deployment)
        names = {address: reverse_dns(deployment, address) for address in addresses}
        known = claims(deployment, addresses)
    findings = [
        _use_case(deployment),
        *(_name_finding(deployment, address, found) for address, found in names.items()),
        *(claim.finding for claim in known),
    ]
    languages = (Language.ENGLISH, Language.KOREAN) if language is Language.BOTH else (language,)
    written = deployment.settings.mail.use_case is not None
    texts = {
        each: text(deployment, each, addresses=names, known=known) if written else ""
        for each in languages
    }
    steps = {each: list(_steps(deployment, each, addresses)) for each in languages}
    if as_json_:
        typer.echo(as_json(findings, form=FORM, reverse_dns=names, text=texts, steps=steps))
    else:
        _show(findings, texts, steps)
    raise typer.Exit(EXIT_STATUS[overall(findings)])


def deployed_addresses(deployment: Deployment) -> list[str]:
    """The Elastic IPs of the deployed SendingIdentity; raises CannotTell."""
    stack = deployment.stack("SendingIdentity")
    if "ElasticIps" not in stack.outputs:
        raise CannotTell(f"{stack.name} is {stack.status} and does not say which addresses it has.")
    return stack.outputs["ElasticIps"].split(", ")


def reverse_dns(deployment: Deployment, address: str) -> str:
    """The name of an Elastic IP in reverse DNS, "" when it has none; raises CannotTell."""
    described = deployment.call("ec2", "describe_addresses", PublicIps=[address])["Addresses"]
    answer = deployment.call(
        "ec2",
        "describe_addresses_attribute",
        AllocationIds=[item["AllocationId"] for item in described],
        Attribute="domain-name",
    )
    names: list[str] = [item.get("PtrRecord", "").rstrip(".") for item in answer["Addresses"]]
    return next(iter(names), "")


def text(
    deployment: Deployment,
    language: Language,
    *,
    addresses: dict[str, str],
    known: Sequence[Claim],
) -> str:
    """The request itself; `addresses` gives each Elastic IP's reverse DNS."""
    settings = deployment.settings
    none = {Language.ENGLISH: "none yet", Language.KOREAN: "아직 없음"}[language]
    sentences = [
        # A record stays on one line, to be compared and copied: these spaces are not wrapped at.
        Template(_CLAIMS[language][claim.name]).substitute(
            {key: value.replace(" ", _NO_BREAK) for key, value in claim.values.items()}
        )
        for claim in known
        if claim.holds
    ]
    return Template(_TEXT[language]).substitute(
        account=settings.account,
        region=settings.region,
        domain=settings.sending_domain,
        postmaster=settings.postmaster,
        use_case=_wrapped(settings.mail.use_case or "", language=Language.ENGLISH),
        addresses="\n".join(
            f"  {address}  {found or none}" for address, found in addresses.items()
        ),
        claims="\n".join(
            _wrapped(sentence, language=language, bullet="- ") for sentence in sentences
        ),
    )


def _wrapped(sentence: str, *, language: Language, bullet: str = "") -> str:
    return textwrap.fill(
        sentence,
        width=_WIDTHS[language],
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    ).replace(_NO_BREAK, " ")


def _steps(deployment: Deployment, language: Language, addresses: Sequence[str]) -> list[str]:
    settings = deployment.settings
    return [
        Template(step).substitute(
            account=settings.account,
            form=FORM,
            addresses=", ".join(addresses),
            domain=settings.sending_domain,
            doctor=postern(settings, "doctor"),
        )
        for step in _STEPS[language]
    ]


def _use_case(deployment: Deployment) -> Finding:
    file, use_case = deployment.settings.file, deployment.settings.mail.use_case
    if use_case is None:
        return Finding(
            check="use case",
            verdict=Verdict.WRONG,
            evidence=f"{file} does not say what you send",
            remedy=f"Write it: [mail] use_case in {file}, who gets which mail and why, and how "
            "much a day. environments/example.toml has an example. Then write the request again.",
        )
    return Finding(check="use case", verdict=Verdict.FINE, evidence=use_case)


def _name_finding(deployment: Deployment, address: str, found: str) -> Finding:
    domain = deployment.settings.sending_domain
    check = f"reverse DNS of {address}"
    if found == domain:
        return Finding(check=check, verdict=Verdict.FINE, evidence=found)
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=found or "none",
        remedy=f"It must be {domain} before you ask. Deploy again, which sets it: "
        f"{cdk_deploy(deployment.settings, 'SendingIdentity')}",
    )


def _show(
    findings: Sequence[Finding],
    texts: dict[Language, str],
    steps: dict[Language, list[str]],
) -> None:
    """The text and the steps on standard output, what is left out on standard error."""
    for language, written in texts.items():
        if written:
            typer.echo(f"{written}\n{_HEADINGS[language]}")
            for number, step in enumerate(steps[language], start=1):
                typer.echo(f"{number}. {step}")
            typer.echo("")
    left_out = [finding for finding in findings if finding.verdict is not Verdict.FINE]
    if left_out:
        show(left_out, Console(stderr=True))
