{{- define "sotto.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sotto.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sotto.labels" -}}
{{ include "sotto.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* Seconds to read so many bytes from the disk, rounded up. */ -}}
{{- define "sotto.readSeconds" -}}
{{- $bytes := index . 0 | int64 -}}
{{- $rate := index . 1 | int64 -}}
{{- div (add $bytes $rate -1) $rate -}}
{{- end -}}

{{- /* A start reads a page of every shard and has its engines prove themselves; at worst the whole
       database comes through the disk once (a scrub beside it, a cold cache), and 60 s go to drivers.
       Probes are 10 s apart. */ -}}
{{- define "sotto.startupFailures" -}}
{{- $all := mul (int64 .Values.database.shards) (int64 .Values.database.shardBytes) -}}
{{- $read := include "sotto.readSeconds" (list $all .Values.database.diskBytesPerSecond) | int64 -}}
{{- div (add $read 60 9) 10 -}}
{{- end -}}

{{- /* The longest a server that is well may be slow to say so: a cold shard is read by every core at
       once, and 30 s go to a device that hangs and is given up. Probes are 10 s apart. */ -}}
{{- define "sotto.livenessFailures" -}}
{{- $read := include "sotto.readSeconds" (list .Values.database.shardBytes .Values.database.diskBytesPerSecond) | int64 -}}
{{- max 3 (div (add $read 30 9) 10) -}}
{{- end -}}

{{- /* All shards, the queues, and 512 MiB for the program and what engines need. */ -}}
{{- define "sotto.memoryMi" -}}
{{- $all := mul (int64 .Values.database.shards) (int64 .Values.database.shardBytes) -}}
{{- add (div $all 1048576) (int64 (.Values.config.memory | default .Values.queueMiB)) 512 -}}Mi
{{- end -}}

{{- /* What follows is for relay and front-end, which have names of their own: the selector of the server
       must not find them. Each takes a list of the root and the program's name. */ -}}
{{- define "sotto.programSelector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}-{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end -}}

{{- define "sotto.programLabels" -}}
{{- $root := index . 0 -}}
{{ include "sotto.programSelector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- /* Of a pod: what it may do. */ -}}
{{- define "sotto.programPod" -}}
{{- $root := index . 0 -}}
# It never speaks to the cluster.
automountServiceAccountToken: false
# Otherwise the cluster's own SOTTO_... variables stand among the program's.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  # Files in the volume keep the modes that the program gave them.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  # A node that goes takes one replica with it.
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "sotto.programSelector" . | nindent 14 }}
{{- end -}}

{{- /* Of a container: what it runs, and how it is watched. Takes its values as a third one. */ -}}
{{- define "sotto.programContainer" -}}
{{- $root := index . 0 -}}
{{- $program := index . 1 -}}
{{- $values := index . 2 -}}
name: {{ $program }}
image: "{{ $root.Values.federationImage.repository }}:{{ $root.Values.federationImage.tag | default $root.Chart.AppVersion }}"
imagePullPolicy: {{ $root.Values.federationImage.pullPolicy }}
args: [{{ $program | quote }}, "--config", "/etc/sotto/{{ $program }}.toml"]
ports:
  - name: https
    containerPort: {{ $values.ports.https }}
    protocol: TCP
  - name: admin
    containerPort: {{ $values.ports.admin }}
    protocol: TCP
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: ["ALL"]
# A start reads files and, of a relay, all quotas; it asks each answer server once, of a front-end.
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

{{- /* For callers: whichever replica is ready. For metrics: each, ready or not. */ -}}
{{- define "sotto.programServices" -}}
{{- $root := index . 0 -}}
{{- $program := index . 1 -}}
{{- $values := index . 2 -}}
{{- $name := printf "%s-%s" (include "sotto.fullname" $root) $program -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels:
    {{- include "sotto.programLabels" . | nindent 4 }}
  {{- with $values.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ $values.service.type }}
  {{- with $values.service.externalTrafficPolicy }}
  externalTrafficPolicy: {{ . }}
  {{- end }}
  selector:
    {{- include "sotto.programSelector" . | nindent 4 }}
  ports:
    - name: https
      port: {{ $values.service.port }}
      targetPort: https
      protocol: TCP
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}-replicas
  labels:
    {{- include "sotto.programLabels" . | nindent 4 }}
    app.kubernetes.io/component: replicas
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    {{- include "sotto.programSelector" . | nindent 4 }}
  ports:
    - name: admin
      port: {{ $values.ports.admin }}
      targetPort: admin
      protocol: TCP
{{- end -}}

{{- /* How many may be away, and who looks at the metrics. */ -}}
{{- define "sotto.programWatched" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s-%s" (include "sotto.fullname" $root) (index . 1) -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels:
    {{- include "sotto.programLabels" . | nindent 4 }}
spec:
  maxUnavailable: {{ $root.Values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "sotto.programSelector" . | nindent 6 }}
{{- if $root.Values.serviceMonitor.enabled }}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ $name }}
  labels:
    {{- include "sotto.programLabels" . | nindent 4 }}
    {{- with $root.Values.serviceMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "sotto.programSelector" . | nindent 6 }}
      app.kubernetes.io/component: replicas
  endpoints:
    - port: admin
      path: /metrics
      interval: {{ $root.Values.serviceMonitor.interval }}
{{- end }}
{{- end -}}

{{- /* The beginning of a network policy: who may come in. Takes the values as a third one. */ -}}
{{- define "sotto.programIngress" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "sotto.fullname" $root }}-{{ index . 1 }}
  labels:
    {{- include "sotto.programLabels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "sotto.programSelector" . | nindent 6 }}
  policyTypes: ["Ingress", "Egress"]
  ingress:
    - ports:
        - port: {{ $values.ports.https }}
          protocol: TCP
      {{- with $values.networkPolicy.callers }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- with $values.ports.receipts }}
    # Gateways report here.
    - ports:
        - port: {{ . }}
          protocol: TCP
    {{- end }}
    {{- with $root.Values.networkPolicy.monitoring }}
    - ports:
        - port: {{ $values.ports.admin }}
          protocol: TCP
      from:
        {{- toYaml . | nindent 8 }}
    {{- end }}
  egress:
    # Names are looked up.
    - ports:
        - {port: 53, protocol: UDP}
        - {port: 53, protocol: TCP}
{{- end -}}

{{- /* More options, as lines of a configuration. */ -}}
{{- define "sotto.options" -}}
{{- range $key, $value := . }}
{{ $key }} = {{ toJson $value }}
{{- end -}}
{{- end -}}

{{- /* A container that copies what a pod holds of the database; a list of the root and a flag. */ -}}
{{- define "sotto.fetch" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.hosts -}}
image: "{{ .image.repository }}:{{ .image.tag | default $root.Chart.AppVersion }}"
imagePullPolicy: {{ .image.pullPolicy }}
args:
  - store
  - fetch
  - --store={{ .store }}
  - --db={{ $root.Values.database.path }}
  - --operator-key=/etc/sotto/operator.pub
  - --placement=/etc/sotto/placement.json
  - --host=$(POD_NAME)
  - --every={{ .everySeconds }}
  {{- with index $ 1 }}
  - {{ . }}
  {{- end }}
env:
  - name: POD_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
{{- with .credentialsSecretName }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: ["ALL"]
resources:
  {{- toYaml .resources | nindent 2 }}
volumeMounts:
  - name: database
    mountPath: {{ dir $root.Values.database.path }}
  - name: config
    mountPath: /etc/sotto
    readOnly: true
{{- end -}}
{{- end -}}
