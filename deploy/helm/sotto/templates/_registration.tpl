{{- /* What registrar, log and key service have in common. Each takes a list of the root, the program's name
       and its values. */ -}}

{{- /* Keys and passwords: the programs refuse files that others than their owner may read, and those of a
       secret are read by a group. So they are copied into memory. Secrets are given as a fourth one. */ -}}
{{- define "sotto.keysOf" -}}
{{- $root := index . 0 -}}
- name: copy-keys
  image: "{{ $root.Values.registrationImage.repository }}:{{ $root.Values.registrationImage.tag | default $root.Chart.AppVersion }}"
  imagePullPolicy: {{ $root.Values.registrationImage.pullPolicy }}
  command: ["sh", "-ec", "for key in /secrets/*; do install -m 600 \"$key\" /run/sotto/; done"]
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: ["ALL"]
  resources:
    requests: {cpu: 10m, memory: 16Mi}
  volumeMounts:
    - name: secrets
      mountPath: /secrets
      readOnly: true
    - name: keys
      mountPath: /run/sotto
{{- end -}}

{{- define "sotto.keyVolumes" -}}
- name: keys
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
- name: secrets
  projected:
    # Read by the program's group (fsGroup), by nobody else.
    defaultMode: 0440
    sources:
      {{- range . }}
      {{- if . }}
      - secret:
          name: {{ . }}
      {{- end }}
      {{- end }}
{{- end -}}

{{- define "sotto.serviceContainer" -}}
{{- $root := index . 0 -}}
{{- $program := index . 1 -}}
{{- $values := index . 2 -}}
name: {{ $program }}
image: "{{ $root.Values.registrationImage.repository }}:{{ $root.Values.registrationImage.tag | default $root.Chart.AppVersion }}"
imagePullPolicy: {{ $root.Values.registrationImage.pullPolicy }}
args:
  - {{ $program }}
  - serve
  - --config
  - /etc/sotto/{{ $program }}.toml
  # The node's probes come from outside; who else may is the network policy's to say.
  - --admin
  - 0.0.0.0:{{ $values.ports.admin }}
  - --admin-anyone
  - --log-format
  - {{ $values.logFormat }}
{{- if $values.database.passwordSecretName }}
env:
  - name: PGPASSFILE
    value: /run/sotto/pgpass
{{- end }}
ports:
  - name: https
    containerPort: {{ $values.ports.https }}
    protocol: TCP
  - name: admin
    containerPort: {{ $values.ports.admin }}
    protocol: TCP
  {{- with $values.ports.receipts }}
  - name: receipts
    containerPort: {{ . }}
    protocol: TCP
  {{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: ["ALL"]
# A start reads files, and makes or renews the tables of the database.
startupProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
resources:
  {{- toYaml $values.resources | nindent 2 }}
{{- end -}}

{{- /* Where a service connects to, after sotto.programIngress. */ -}}
{{- define "sotto.serviceEgress" -}}
{{- with (index . 2).networkPolicy.tcpPorts }}
    - ports:
        {{- range . }}
        - {port: {{ . }}, protocol: TCP}
        {{- end }}
{{- end }}
{{- end -}}
