"""A closed security group, as command lines of the clouds' own tools: 80 and 443 for everybody, SSH for one address.

Action and parameter names are those of the tools' API models (tccli: vpc and cvm 2017-03-12; Alibaba Cloud: ecs 2014-05-26).
"""

from __future__ import annotations

import ipaddress
import json
from shlex import quote

from redkeep.errors import UsageError

GROUP = "rescued-closed"
_PORTS = (("80", "web"), ("443", "web with TLS"))


def ssh_source(text: str) -> str:
    """The address or range in its canonical spelling. Raises ``UsageError``, also for everybody."""
    hint = "write the address that you administer from, such as 203.0.113.7"
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageError(f"not an address or range: {text[:80]}", where="--ssh-from", next=hint) from None
    if network.prefixlen < (8 if network.version == 4 else 20):
        raise UsageError(f"that is nearly everybody: {network}", where="--ssh-from", next=hint)
    return str(network)


def _head(tool: str, ids: str, source: str) -> list[str]:
    lines = [
        "#!/bin/sh",
        f"# A closed security group for the new server, by {tool}: 80 and 443 for everybody, SSH from one address.",
        "# Redis' own rules are not here: redkeep plan prints those that its nodes need among each other.",
        "set -eu",
        f': "${{REGION:?the region of the new server}}" "${{INSTANCE:?the id of the new server, {ids}}}"',
    ]
    if source:
        return [*lines, f"SSH_FROM={quote(source)}"]
    return [
        *lines,
        ': "${SSH_FROM:?the address that you administer from, such as 203.0.113.7/32}"',
        'case $SSH_FROM in *[!0-9./]*|*/0) echo "SSH_FROM is not one IPv4 address" >&2; exit 2;; esac',
    ]


def tencent(source: str) -> str:
    """``source``: where SSH comes from; empty to have the script ask for it."""
    everybody = [
        {key: cidr, "Protocol": "TCP", "Port": port, "Action": "ACCEPT", "PolicyDescription": why}
        for port, why in _PORTS
        for key, cidr in (("CidrBlock", "0.0.0.0/0"), ("Ipv6CidrBlock", "::/0"))
    ]
    ssh = {"Protocol": "TCP", "Port": "22", "Action": "ACCEPT", "PolicyDescription": "SSH"}
    ssh |= {"Ipv6CidrBlock" if ":" in source else "CidrBlock": "SSH_FROM"}
    out = [
        {key: cidr, "Protocol": "ALL", "Port": "ALL", "Action": "ACCEPT", "PolicyDescription": "updates"}
        for key, cidr in (("CidrBlock", "0.0.0.0/0"), ("Ipv6CidrBlock", "::/0"))
    ]
    text = json.dumps({"Ingress": [ssh, *everybody], "Egress": out})
    policies = quote(text).replace("SSH_FROM", "'\"$SSH_FROM\"'")
    return "\n".join(
        [
            *_head("tccli", "such as ins-0a1b2c3d", source),
            f'GROUP=$(tccli vpc CreateSecurityGroupWithPolicies --region "$REGION" --GroupName {GROUP} \\',
            "  --GroupDescription '80, 443, SSH from one address' \\",
            f"  --SecurityGroupPolicySet {policies} \\",
            "  --filter SecurityGroup.SecurityGroupId --output text)",
            "# Must show sg-...; its rules must be the five or so from above, and no other:",
            'echo "$GROUP"',
            'tccli vpc DescribeSecurityGroupPolicies --region "$REGION" --SecurityGroupId "$GROUP"',
            "# This takes the server out of its other groups, among them the open one:",
            'tccli cvm ModifyInstancesAttribute --region "$REGION" --InstanceIds "[\\"$INSTANCE\\"]" \\',
            '  --SecurityGroups "[\\"$GROUP\\"]"',
            "# SecurityGroupIds must show that one group only:",
            'tccli cvm DescribeInstances --region "$REGION" --InstanceIds "[\\"$INSTANCE\\"]" \\',
            "  --filter 'InstanceSet[0].SecurityGroupIds'",
            "",
        ]
    )


def alibaba(source: str) -> str:
    """As ``tencent``."""
    rules = [("22", "SourceCidrIp" if ":" not in source else "Ipv6SourceCidrIp", '"$SSH_FROM"', "SSH")]
    for port, why in _PORTS:
        rules += [(port, "SourceCidrIp", "0.0.0.0/0", why), (port, "Ipv6SourceCidrIp", "::/0", why)]
    permissions = [
        f"  --Permissions.{n}.Policy accept --Permissions.{n}.IpProtocol tcp --Permissions.{n}.PortRange {port}/{port} "
        f"--Permissions.{n}.{key} {cidr} --Permissions.{n}.Description {quote(why)}"
        for n, (port, key, cidr, why) in enumerate(rules, start=1)
    ]
    take = 'sed -n \'s/.*"SecurityGroupId": *"\\([^"]*\\)".*/\\1/p\''
    return "\n".join(
        [
            *_head("aliyun", "such as i-bp1abc", source),
            ': "${VPC:?the id of its VPC, such as vpc-bp1abc, which DescribeInstances shows}"',
            f'GROUP=$(aliyun ecs CreateSecurityGroup --region "$REGION" --VpcId "$VPC" --SecurityGroupName {GROUP} \\',
            f"  --Description '80, 443, SSH from one address' | {take})",
            "# Must show sg-...:",
            'echo "${GROUP:?no group was made}"',
            'aliyun ecs AuthorizeSecurityGroup --region "$REGION" --SecurityGroupId "$GROUP" \\',
            " \\\n".join(permissions),
            "# Its members do not reach each other either:",
            'aliyun ecs ModifySecurityGroupPolicy --region "$REGION" --SecurityGroupId "$GROUP" --InnerAccessPolicy Drop',
            "# Must show those five rules, and no other:",
            'aliyun ecs DescribeSecurityGroupAttribute --region "$REGION" --SecurityGroupId "$GROUP" --Direction ingress',
            "# This takes the server out of its other groups, among them the open one:",
            'aliyun ecs ModifyInstanceAttribute --region "$REGION" --InstanceId "$INSTANCE" --SecurityGroupIds.1 "$GROUP"',
            "# SecurityGroupIds must show that one group only:",
            'aliyun ecs DescribeInstances --region "$REGION" --InstanceIds "[\\"$INSTANCE\\"]"',
            "",
        ]
    )
