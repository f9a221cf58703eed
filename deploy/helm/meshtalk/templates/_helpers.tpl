{{- define "meshtalk.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Names of pods are names of nodes and host names: 63 characters with the number. */}}
{{- define "meshtalk.fullname" -}}
{{- $name := include "meshtalk.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 48 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "meshtalk.selector" -}}
app.kubernetes.io/name: {{ include "meshtalk.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "meshtalk.labels" -}}
{{ include "meshtalk.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "meshtalk.secret" -}}
{{- default (include "meshtalk.fullname" .) .Values.secret.existing }}
{{- end }}

{{/* What meshtalk.yaml says: config, and above it what the chart sets. */}}
{{- define "meshtalk.config" -}}
{{- $own := dict
  "data-dir" "/var/lib/meshtalk/data"
  "admin" (dict "enable" true "host" "0.0.0.0")
  "shutdown" (dict "timeout" (printf "%ds" (int .Values.stop.timeoutSeconds)))
  "cluster" (dict "enable" .Values.cluster.enable)
}}
{{- toYaml (mergeOverwrite (deepCopy .Values.config) $own) }}
{{- end }}

{{/* The Secret as the chart makes it. */}}
{{- define "meshtalk.secretData" }}
{{- $s := .Values.secret }}
{{- $token := $s.adminToken | b64enc }}
{{- if not $token }}
{{- $there := lookup "v1" "Secret" .Release.Namespace (include "meshtalk.fullname" .) | default dict }}
{{- $token = get (get $there "data" | default dict) "admin-token" | default (randAlphaNum 40 | b64enc) }}
{{- end -}}
admin-token: {{ $token }}
{{- range $key, $value := dict "jwt-secret" $s.jwtSecret "postgres-url" $s.postgresUrl "redis-password" $s.redisPassword "rocketmq-access-key" $s.rocketmqAccessKey "rocketmq-secret-key" $s.rocketmqSecretKey }}
{{- with $value }}
{{ $key }}: {{ b64enc . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Values that cannot work. */}}
{{- define "meshtalk.check" -}}
{{- if not (or .Values.config.websocket.enable .Values.config.tcpsocket.enable) }}
{{- fail "config: websocket or tcpsocket must be enabled" }}
{{- end }}
{{- if and .Values.cluster.enable (not .Values.secret.existing) }}
{{- if not .Values.secret.postgresUrl }}
{{- fail "secret.postgresUrl: a cluster needs one" }}
{{- end }}
{{- $jwt := dig "auth" "jwt" dict .Values.config }}
{{- if not (or .Values.secret.jwtSecret (get $jwt "jwks-url") (get $jwt "public-key-files")) }}
{{- fail "secret.jwtSecret: a cluster needs one, or config.auth.jwt.jwks-url or .public-key-files: each node would make a key of its own" }}
{{- end }}
{{- end }}
{{- end }}
