"""Lints and renders the chart with Helm's own library, compares what comes out with Kubernetes' schemas
and the program's options, and the probes with the sizes they follow from. Starts relay, front-end, registrar,
log and key service with the files that their pods would see. No cluster is asked.

    python -m venv V && V/bin/pip install --require-hashes -r deploy/helm/requirements.txt
    V/bin/python deploy/helm/check.py [SOTTO]

SOTTO is the program, with the features front-end and registration; without it its options are not compared
and nothing is started. What a program without one of them lacks is not started, and said.
"""

import json
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

# Nobody is there: a front-end tries again for as long as it runs.
PLACEMENT = """
[[database]]
id = "sample"

[[database.server]]
address = "localhost:1"
name = "localhost"
"""

# Its gateway is not there: a registrar tries again for as long as it runs.
TABLES = """
[[ap]]
domain = "alpha.example"
name = "Alpha"
rules = { countries = ["US"], messages-a-day = 100, money-a-day = 10000 }

[fraud]
prices = { US = 10 }

[channels]
dp = "Find"
sms = ["kannel"]

[channels.gateways.kannel]
kind = "http"
url = "http://127.0.0.1:1/send?to={to}&text={text}"
"""

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
    "eight hosts": {
        "replicas": 8,
        "hosts": {
            "enabled": True,
            "store": "s3://bucket/people",
            "credentialsSecretName": "sotto-store",
            "serviceAccountName": "store-reader",
        },
        "config": {"connections": 1_000, "memory": 4000},
        "gpu": {"enabled": True},
        "initContainers": [{"name": "wait", "image": "busybox"}],
    },
    "hosts for anyone": {
        "clients": {"anyoneMayAsk": True},
        "hosts": {"enabled": True, "store": "gs://bucket/people", "tcpPorts": [443, 8443]},
    },
    "a relay alone": {
        "server": {"enabled": False},
        "relay": {
            "enabled": True,
            "accounts": {"audience": "relay.example"},
            "config": {"evaluate": "2048,256/day", "connections": 8_192},
            "keyServices": {
                "directoryConfigMapName": "sotto-directory",
                "caSecretName": "sotto-key-services-ca",
            },
        },
    },
    "a relay that asks about tokens": {
        "server": {"enabled": False},
        "relay": {
            "enabled": True,
            "replicas": 2,
            "accounts": {
                "jwksSecretName": "",
                "introspectUrl": "https://localhost:1/introspect",
                "introspectSecretName": "sotto-introspect",
            },
            "service": {"externalTrafficPolicy": "Local", "annotations": {"a": "b"}},
            "networkPolicy": {"callers": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        },
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "a front-end alone": {
        "server": {"enabled": False},
        "frontEnd": {"enabled": True, "placement": PLACEMENT},
        "networkPolicy": {"enabled": False},
    },
    "three front-ends that evaluate, and all else": {
        "relay": {"enabled": True},
        "frontEnd": {
            "enabled": True,
            "replicas": 3,
            "placement": PLACEMENT,
            "volume": {"accessMode": "ReadWriteMany", "storageClassName": "shared"},
            "answers": {"clientSecretName": ""},
            "blindKeys": {"secretName": "sotto-blind-keys", "databases": ["sample"]},
            "canariesSecretName": "sotto-canaries",
            "config": {"memory": 512, "canary-seconds": 60},
            "extraVolumes": [{"name": "filters", "persistentVolumeClaim": {"claimName": "filters"}}],
            "extraVolumeMounts": [{"name": "filters", "mountPath": "/var/lib/filters"}],
        },
        "serviceMonitor": {"enabled": True},
    },
    "a registrar alone": {
        "server": {"enabled": False},
        "registrar": {"enabled": True, "issuer": "discovery.example", "tables": TABLES},
    },
    "registrars of a region, a log and key services": {
        "server": {"enabled": False},
        "registrar": {
            "enabled": True,
            "replicas": 2,
            "issuer": "discovery.example",
            "tables": TABLES,
            "region": "EU",
            "regionPrefixes": ["+49", "@"],
            "ports": {"receipts": 8448},
            "credentialsSecretName": "",
            "database": {"passwordSecretName": ""},
            "config": {"connections": 2_048},
        },
        "log": {"enabled": True, "service": {"annotations": {"a": "b"}}, "logFormat": "human"},
        "keys": {
            "enabled": True,
            "replicas": 2,
            "volume": {"accessMode": "ReadWriteMany", "storageClassName": "shared"},
            "accounts": {"audience": "keys.b.example"},
            "config": {"claims-an-hour": 50},
            "networkPolicy": {"callers": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        },
        "serviceMonitor": {"enabled": True},
    },
    "a key service alone, without a policy": {
        "server": {"enabled": False},
        "keys": {"enabled": True},
        "networkPolicy": {"enabled": False},
    },
}

REFUSED = {
    "nobody may ask": {"clients": {"caSecretName": ""}},
    "an address that is the chart's": {"config": {"listen": "0.0.0.0:1"}},
    "hosts of nothing": {"hosts": {"enabled": True}},
    "a placement that is not the chart's": {"config": {"placement": "/tmp/placement.json"}},
    "no time to leave": {"terminationGracePeriodSeconds": 10},
    "too many shards": {"database": {"shards": 70_000}},
    "a relay that knows no accounts": {"relay": {"enabled": True, "accounts": {"jwksSecretName": ""}}},
    "a relay that knows accounts in two ways": {
        "relay": {"enabled": True, "accounts": {"introspectUrl": "https://a.example/"}}
    },
    "a front-end without TLS": {"relay": {"enabled": True, "frontEnd": {"url": "http://a.example/"}}},
    "a folder that is the chart's": {"frontEnd": {"enabled": True, "config": {"ohttp-keys": "/tmp"}}},
    "replicas without common keys": {"frontEnd": {"enabled": True, "replicas": 2}},
    "a registrar with a database of its own pod": {
        "registrar": {"enabled": True, "database": {"url": "sqlite:registrar.sqlite"}}
    },
    "a registrar's secrets elsewhere": {"registrar": {"enabled": True, "config": {"keys": "/tmp"}}},
    "two logs": {"log": {"enabled": True, "replicas": 2}},
    "key services without common keys": {"keys": {"enabled": True, "replicas": 2}},
    "keys that are nowhere": {"frontEnd": {"enabled": True, "blindKeys": {"databases": ["sample"]}}},
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
    container = pod(named(found["StatefulSet"], "try-sotto"))["containers"][0]
    startup, alive = container["startupProbe"], container["livenessProbe"]
    budget = startup["failureThreshold"] * startup["periodSeconds"]
    assert whole + 60 <= budget < whole + 80, (budget, whole)
    budget = alive["failureThreshold"] * alive["periodSeconds"]
    assert shard + 30 <= budget < shard + 50, (budget, shard)


def check_options(found, program):
    text = named(found["ConfigMap"], "try-sotto")["data"]["sotto.toml"]
    container = pod(named(found["StatefulSet"], "try-sotto"))["containers"][0]
    # What comes from the pod has a value there.
    environment = {each["name"]: each.get("value", "try-sotto-0") for each in container.get("env", [])}
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        command = [program, "config", "--config", file.name]
        read = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert read.returncode == 0, text + read.stderr


def check_hosts(found, values, program):
    """Pods fetch and open what the placement gives to their names."""
    spec = pod(named(found["StatefulSet"], "try-sotto"))
    assert spec["containers"][0]["name"] == "sotto"
    fetches = [each for each in spec["containers"] + spec["initContainers"] if each["name"].startswith("fetch")]
    assert [each["args"][-1] == "--watch" for each in fetches] == [True, False]
    if not program:
        return
    has = subprocess.run([program, "store", "--help"], capture_output=True)
    if has.returncode != 0:
        print("not started, for the program does not have it: sotto store")
        return
    replicas = values.get("replicas", 2)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)

        def run(*arguments):
            made = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)
            assert made.returncode == 0, made.stderr
            return made.stdout

        names = [f"try-sotto-{number}" for number in range(replicas)]
        hosts = [f"{name} {name}.try-sotto-replicas.look-ups.svc:4433\n" for name in names]
        (folder / "hosts").write_text("".join(hosts))
        (folder / "records.csv").write_text(run("sample", "--records", "2000"))
        run("build", "--input", "records.csv", "--out", "db", "--shards", "16")
        made = run("placement", "make", "--hosts", "hosts", "--shards", "16", "--copies", "2")
        (folder / "placement.json").write_text(made)
        run("store", "push", "--db", "db", "--store", "store")
        run("store", "announce", "--store", "store", "--epoch", "1")
        for name in names:
            # As in the pod, with the folders of this one.
            arguments = [each.replace("$(POD_NAME)", name) for each in fetches[1]["args"]]
            arguments = [each.replace("/etc/sotto/operator.pub", "db/operator.pub") for each in arguments]
            arguments = [each.replace("/etc/sotto/", "") for each in arguments]
            arguments = [each.replace(values["hosts"]["store"], "store") for each in arguments]
            arguments = [each.replace("/var/lib/sotto/db", f"of-{name}") for each in arguments]
            run(*arguments)
            checked = ["doctor", "--db", f"of-{name}", "--placement", "placement.json", "--host", name]
            read = subprocess.run([program, *checked, "--json"], cwd=folder, capture_output=True, text=True)
            database = next(each for each in json.loads(read.stdout) if each["check"] == "database")
            assert database["status"] == "ok" and f"of 16 for {name}" in database["found"], database


def named(objects, name):
    return next(each for each in objects if each["metadata"]["name"] == name)


def pod(workload):
    return workload["spec"]["template"]["spec"]


def check_selectors(found):
    """Each service, policy and budget is about the pods of one program."""
    workloads = found.get("StatefulSet", []) + found.get("Deployment", [])
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in workloads]
    for kind in ["Service", "NetworkPolicy", "PodDisruptionBudget"]:
        for each in found.get(kind, []):
            spec = each["spec"]
            selector = spec.get("podSelector", spec.get("selector"))
            selector = selector.get("matchLabels", selector).items()
            name = each["metadata"]["name"]
            assert sum(selector <= pod.items() for pod in labels) == 1, (kind, name)


class Files:
    """What is in the secrets and config maps that the values name, made by the program."""

    def __init__(self, folder, program):
        def run(*arguments):
            made = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)
            assert made.returncode == 0, made.stderr
            return made.stdout.strip()

        run("cert", "--out", "certs")
        run("records", "blind-key", "blind.key")
        run("sample", "--statements", "1", "--out", "sample", "--blind", "blind.key")
        public = run("directory", "key", "identity.pem")

        def text(name):
            return (folder / name).read_text()

        def tls(kind):
            return {"tls.crt": text(f"certs/{kind}.pem"), "tls.key": text(f"certs/{kind}.key")}

        authority = {"ca.crt": text("certs/ca.pem")}
        keys = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": public}]}
        self.secrets = {
            "sotto-relay-tls": tls("server"),
            "sotto-front-end-tls": tls("server"),
            "sotto-relay-client": tls("client"),
            "sotto-front-end-client": tls("client"),
            "sotto-front-end-ca": authority,
            "sotto-relays-ca": authority,
            "sotto-key-services-ca": authority,
            "sotto-answers-ca": authority,
            "sotto-accounts": {"accounts.jwks": json.dumps(keys)},
            "sotto-introspect": authority | {"authorization": "Basic YTpi\n"},
            "sotto-front-end-identity": {"identity.pem": text("identity.pem")},
            "sotto-blind-keys": {"sample.blind": text("blind.key")},
            "sotto-canaries": {"canaries": "sample +12015550100\n"},
            "sotto-registrar-tls": tls("server"),
            "sotto-log-tls": tls("server"),
            "sotto-keys-tls": tls("server"),
            "sotto-providers-ca": authority,
            "sotto-log-callers-ca": authority,
            "sotto-registrar-keys": {
                "issuer.pem": text("sample/issuer-2.pem"),
                "pepper.key": f"sotto-registrar-1 {'A' * 43}\n",
                "sii.key": f"sotto-registrar-1 {'B' * 42}A\n",
            },
            "sotto-registrar-credentials": {"centre.credentials": "user\npassword\n"},
            "sotto-log-key": {"log-key.pem": text("identity.pem")},
            "sotto-keys-keys": {"identity.pem": text("identity.pem"), "identifiers.key": "A" * 32},
        }
        for service in ["registrar", "log", "keys"]:
            self.secrets[f"sotto-{service}-database"] = {"pgpass": "postgres:5432:*:sotto:password\n"}
        directory = {"directory.json": text("sample/directory.json"), "pins.json": text("sample/pins.json")}
        self.config_maps = {"sotto-directory": directory}

    def put(self, sources, found, folder):
        """Lays out a projected volume."""
        for source in sources:
            if "configMap" in source:
                name, items = source["configMap"]["name"], source["configMap"].get("items")
                own = [each for each in found["ConfigMap"] if each["metadata"]["name"] == name]
                data = own[0]["data"] if own else self.config_maps[name]
            else:
                name, items = source["secret"]["name"], source["secret"].get("items")
                data = self.secrets[name]
            for item in items or [{"key": key, "path": key} for key in data]:
                path = folder / item["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(data[item["key"]])


def check_start(workload, found, files, program):
    """A relay or a front-end starts with what its pod would see, at other addresses, and leaves."""
    spec = pod(workload)
    container = spec["containers"][0]
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        for mount in container["volumeMounts"]:
            folder = root / mount["mountPath"].lstrip("/")
            folder.mkdir(parents=True)
            for volume in spec["volumes"]:
                if volume["name"] == mount["name"] and "projected" in volume:
                    files.put(volume["projected"]["sources"], found, folder)
        # Paths begin below the folder, and ports are free ones.
        arguments = [each.replace("/etc/", f"{root}/etc/") for each in container["args"]]
        file = pathlib.Path(arguments[-1])
        text = file.read_text().replace("/etc/sotto/", f"{root}/etc/sotto/")
        text = text.replace("/var/lib/", f"{root}/var/lib/")
        for port in container["ports"]:
            address = f"0.0.0.0:{port['containerPort']}"
            assert address in text, (address, text)
            text = text.replace(address, "127.0.0.1:0")
        file.write_text(text)
        with open(root / "log", "w+") as log:
            started = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=log, text=True)
            line = started.stdout.readline()
            started.terminate()
            started.stdout.close()
            code = started.wait()
            log.seek(0)
            assert line.startswith("listening on ") and code == 0, text + line + log.read()


def check_service(workload, found, files, program):
    """The same for a registrar, a log or a key service, with SQLite in place of PostgreSQL."""
    spec = pod(workload)
    container, copies = spec["containers"][0], spec["initContainers"][0]
    service, serve, option, path, *flags = container["args"]
    assert (serve, option, path) == ("serve", "--config", f"/etc/sotto/{service}.toml"), container["args"]
    has = subprocess.run([program, service, "--help"], capture_output=True)
    if has.returncode != 0:
        print(f"not started, for the program does not have it: sotto {service}")
        return
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        folders = {}
        for mount in container["volumeMounts"] + copies["volumeMounts"]:
            folder = folders[mount["name"]] = root / mount["mountPath"].lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
        for volume in spec["volumes"]:
            if "projected" in volume:
                files.put(volume["projected"]["sources"], found, folders[volume["name"]])
        copying = [each.replace("/secrets/", f"{root}/secrets/") for each in copies["command"]]
        copying = [each.replace("/run/sotto/", f"{root}/run/sotto/") for each in copying]
        subprocess.run(copying, check=True)
        file = root / path.lstrip("/")
        text = file.read_text()
        for folder in ["/etc/sotto/", "/run/sotto", "/var/lib/"]:
            text = text.replace(f'"{folder}', f'"{root}{folder}')
        text = text.replace(f'"postgres://sotto@postgres/{service}"', f'"sqlite:{root}/{service}.sqlite"')
        addresses = [f"0.0.0.0:{port['containerPort']}" for port in container["ports"]]
        assert addresses[0] in text and addresses[1] in flags and "sqlite:" in text, (addresses, text, flags)
        for address in [addresses[0], *addresses[2:]]:
            assert address in text, (address, text)
            text = text.replace(address, "127.0.0.1:0")
        file.write_text(text)
        flags = ["127.0.0.1:0" if each == addresses[1] else each for each in flags]
        with open(root / "log", "w+") as log:
            command = [program, service, serve, option, file, *flags]
            started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            line = started.stdout.readline()
            started.terminate()
            started.stdout.close()
            code = started.wait()
            log.seek(0)
            assert line.startswith("listening on ") and code == 0, text + line + log.read()


def check(values, files, program):
    found = {}
    for document in documents(values):
        found.setdefault(document["kind"], []).append(document)
        if document["kind"] not in FOREIGN:
            for version in KUBERNETES:
                kubernetes_validate.validate(document, version, strict=True)
    check_selectors(found)
    if values.get("hosts", {}).get("enabled"):
        check_hosts(found, values, program)
    if values.get("server", {}).get("enabled", True):
        check_probes(found, values)
        if program:
            check_options(found, program)
    for workload in found.get("StatefulSet", []) + found.get("Deployment", []):
        if program and workload["metadata"]["name"] in ["try-sotto-relay", "try-sotto-front-end"]:
            check_start(workload, found, files, program)
        if program and workload["metadata"]["name"] in ["try-sotto-registrar", "try-sotto-log", "try-sotto-keys"]:
            check_service(workload, found, files, program)
    return found


def check_job():
    """The Job that encodes shards; attempts of their own for each index are stable since 1.33."""
    for document in yaml.safe_load_all((pathlib.Path(__file__).parent.parent / "job/job.yaml").read_text()):
        for version in ["1.33", KUBERNETES[-1]]:
            kubernetes_validate.validate(document, version, strict=True)
        print(f"job/job.yaml: {document['kind']}")


def main():
    check_job()
    program = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        files = Files(pathlib.Path(folder), program) if program else None
        for name, values in CASES.items():
            found = check(values, files, program)
            kinds = [f"{kind} {len(many)}" for kind, many in sorted(found.items())]
            print(f"{name}: {', '.join(kinds)}")
    for name, values in REFUSED.items():
        try:
            documents(values)
        except (helm.HelmError, AssertionError):
            print(f"refused as it should be: {name}")
        else:
            sys.exit(f"not refused: {name}")


main()
