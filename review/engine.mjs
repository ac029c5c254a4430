// What deploying one template over another does, by the CDK's own diff engine.
//
// Reads {name: {before, after}} as JSON from standard input, templates both, {} for a stack that is
// not there; writes {name: changes} to standard output.
import { readFileSync } from "node:fs";
import { fullDiff } from "@aws-cdk/cloudformation-diff";

const changed = (collection) =>
  Object.entries(collection.changes).map(([id, { oldValue, newValue }]) => ({
    id,
    before: oldValue ?? null,
    after: newValue ?? null,
  }));

const parts = (changes) =>
  Object.entries(changes).map(([name, { oldValue, newValue, changeImpact }]) => ({
    name,
    impact: changeImpact ?? "WILL_UPDATE",
    before: oldValue ?? null,
    after: newValue ?? null,
  }));

const rendered = ({ additions, removals }, render) => ({
  added: additions.map(render),
  removed: removals.map(render),
});

const rule = (rule) => ({
  group: rule.groupId,
  protocol: rule.describeProtocol(),
  peer: rule.describePeer(),
});

function changes({ before, after }) {
  const diff = fullDiff(before, after);
  return {
    resources: Object.entries(diff.resources.changes).map(([id, resource]) => ({
      id,
      type: resource.newResourceType ?? resource.oldResourceType,
      old_type: resource.oldResourceType ?? null,
      impact: resource.changeImpact,
      // Of a resource that is added, removed or of another type they are the whole resource.
      properties: parts(resource.propertyUpdates),
      attributes: parts(resource.otherChanges),
    })),
    outputs: changed(diff.outputs),
    parameters: changed(diff.parameters),
    // Security groups' rules are not in this: they have a table of their own.
    broadened: diff.iamChanges.permissionsBroadened,
    statements: rendered(diff.iamChanges.statements, (statement) => statement.render()),
    managed_policies: rendered(diff.iamChanges.managedPolicies, (policy) => ({
      identity: policy.identityArn,
      policy: policy.managedPolicyArn,
    })),
    ingress: rendered(diff.securityGroupChanges.ingress, rule),
    egress: rendered(diff.securityGroupChanges.egress, rule),
  };
}

const pairs = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(
  JSON.stringify(
    Object.fromEntries(Object.entries(pairs).map(([name, pair]) => [name, changes(pair)])),
  ),
);
