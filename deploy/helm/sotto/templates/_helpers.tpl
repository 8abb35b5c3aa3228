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
