"""Lints and renders the chart with Helm's own library, compares what comes out with Kubernetes' schemas
and the program's options, and the probes with the sizes they follow from. No cluster is asked.

    python -m venv V && V/bin/pip install --require-hashes -r deploy/helm/requirements.txt
    V/bin/python deploy/helm/check.py [SOTTO]

SOTTO is the program; without it its options are not compared.
"""

import pathlib
import subprocess
import sys
import tempfile

import helm_python as helm
import kubernetes_validate
import yaml

CHART = str(pathlib.Path(__file__).parent / "sotto")
# The oldest and the newest there are schemas for.
KUBERNETES = ["1.28", "1.37"]
# Not Kubernetes' own.
FOREIGN = {"ServiceMonitor"}

CASES = {
    "as it is": {},
    "with GPUs and all": {
        "gpu": {"enabled": True, "runtimeClassName": "nvidia"},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "clients": {"allow": "a.example 3\nb.example 1 250\n"},
        "config": {"target-ms": 500, "memory": 2000, "gpu": ["H200", 0]},
        "networkPolicy": {"clients": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        "service": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
        "resources": {"limits": {"memory": "64Gi"}},
        "database": {"shards": 10_000, "shardBytes": 150_000_000},
    },
    "for anyone": {
        "clients": {"anyoneMayAsk": True},
        "networkPolicy": {"enabled": False},
        "resources": {"requests": {"memory": "8Gi"}},
    },
}

REFUSED = {
    "nobody may ask": {"clients": {"caSecretName": ""}},
    "an address that is the chart's": {"config": {"listen": "0.0.0.0:1"}},
    "no time to leave": {"terminationGracePeriodSeconds": 10},
    "too many shards": {"database": {"shards": 70_000}},
}


def documents(values):
    report = helm.lint(CHART, values, strict=True)
    assert not report["errors"], report
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name="try", namespace="look-ups")
    texts = [text for name, text in rendered.items() if not name.endswith(".txt")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def check_probes(found, values):
    """A start may read every byte, a look at a living server one shard's; see _helpers.tpl."""
    database = {"shards": 64, "shardBytes": 150_000_000, "diskBytesPerSecond": 200_000_000}
    database |= values.get("database", {})
    shard = -(-database["shardBytes"] // database["diskBytesPerSecond"])
    whole = -(-database["shards"] * database["shardBytes"] // database["diskBytesPerSecond"])
    container = found["StatefulSet"][0]["spec"]["template"]["spec"]["containers"][0]
    startup, alive = container["startupProbe"], container["livenessProbe"]
    budget = startup["failureThreshold"] * startup["periodSeconds"]
    assert whole + 60 <= budget < whole + 80, (budget, whole)
    budget = alive["failureThreshold"] * alive["periodSeconds"]
    assert shard + 30 <= budget < shard + 50, (budget, shard)


def check_options(found, program):
    text = found["ConfigMap"][0]["data"]["sotto.toml"]
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        read = subprocess.run([program, "config", "--config", file.name], capture_output=True, text=True)
    assert read.returncode == 0, text + read.stderr


def main():
    for name, values in CASES.items():
        found = {}
        for document in documents(values):
            found.setdefault(document["kind"], []).append(document)
            if document["kind"] not in FOREIGN:
                for version in KUBERNETES:
                    kubernetes_validate.validate(document, version, strict=True)
        check_probes(found, values)
        if len(sys.argv) > 1:
            check_options(found, sys.argv[1])
        print(f"{name}: {', '.join(sorted(found))}")
    for name, values in REFUSED.items():
        try:
            documents(values)
        except (helm.HelmError, AssertionError):
            print(f"refused as it should be: {name}")
        else:
            sys.exit(f"not refused: {name}")


main()
