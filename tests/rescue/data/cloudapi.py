"""Makes cloud-api.json: the parameters of the actions that the runbook uses, from the providers' models.

pip download --no-deps tccli==3.1.189.1 aliyun-python-sdk-ecs==4.24.83
python tests/rescue/data/cloudapi.py tccli-*.whl aliyun_python_sdk_ecs-*.whl > tests/rescue/data/cloud-api.json
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

TENCENT = {
    "cbs": "AttachDisks CreateDisks CreateSnapshot DeleteSnapshots DescribeDisks DescribeSnapshots DetachDisks "
    "TerminateDisks",
    "cvm": "CreateImage DeleteImages DescribeImages DescribeInstances DescribeKeyPairs ExportImages "
    "ModifyInstancesAttribute ResetInstance RunInstances StopInstances TerminateInstances",
    "vpc": "CreateSecurityGroup CreateSecurityGroupWithPolicies DeleteSecurityGroup DescribeSecurityGroupPolicies",
}
ALIBABA = (
    "AttachDisk AuthorizeSecurityGroup AuthorizeSecurityGroupEgress CreateDisk CreateImage CreateSecurityGroup "
    "CreateSnapshot DeleteDisk DeleteImage DeleteInstance DeleteSecurityGroup DeleteSnapshot DescribeDisks DescribeImages "
    "DescribeInstances DescribeKeyPairs DescribeSecurityGroupAttribute DescribeSnapshots DetachDisk ExportImage "
    "ModifyInstanceAttribute ModifySecurityGroupPolicy ReplaceSystemDisk RunInstances StartInstance StopInstance"
)


def tencent(wheel: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with zipfile.ZipFile(wheel) as archive:
        for service, actions in TENCENT.items():
            name = max(n for n in archive.namelist() if re.search(rf"services/{service}/v\w+/api\.json$", n))
            objects = json.loads(archive.read(name))["objects"]
            for action in actions.split():
                found[f"{service} {action}"] = {
                    m["name"]: {"required": bool(m.get("required")), **_fields(objects, m["member"])}
                    for m in objects[f"{action}Request"]["members"]
                }
    return found


def _fields(objects: Any, name: str, depth: int = 3) -> dict[str, Any]:
    """Of a parameter that is an object: its own, and what they hold in turn."""
    if name not in objects or not depth:
        return {}
    return {"fields": {m["name"]: _fields(objects, m["member"], depth - 1) for m in objects[name]["members"]}}


def alibaba(wheel: str) -> dict[str, list[str]]:
    with zipfile.ZipFile(wheel) as archive:
        return {f"ecs {action}": sorted(set(_parameters(archive, action))) for action in ALIBABA.split()}


def _parameters(archive: zipfile.ZipFile, action: str) -> Iterator[str]:
    text = archive.read(f"aliyunsdkecs/request/v20140526/{action}Request.py").decode()
    for match in re.finditer(r"add_query_param\(([^,]+),", text):
        yield re.sub(r"\s*\+\s*|str\(\w+ \+ 1\)|'", lambda m: "N" if "str" in m[0] else "", match[1])


if __name__ == "__main__":
    json.dump(
        {"tencent": tencent(sys.argv[1]), "alibaba": alibaba(sys.argv[2])},
        sys.stdout,
        indent=1,
        sort_keys=True,
    )
