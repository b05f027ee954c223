{{/* Names. */}}
{{- define "watchword.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "watchword.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "watchword.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "watchword.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which the pods of the replicas are found. They never change. */}}
{{- define "watchword.selector" -}}
app.kubernetes.io/name: {{ include "watchword.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: replica
{{- end -}}

{{- define "watchword.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/name: {{ include "watchword.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "watchword.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "watchword.scheme" -}}
{{- if .Values.server.tls.secretName }}https{{ else }}http{{ end -}}
{{- end -}}

{{/* The value tokens.keys as the replicas take it. */}}
{{- define "watchword.tokenKeys" -}}
{{- $keys := dig "tokens" "keys" "auto" .Values.config -}}
{{- if ne $keys "auto" -}}{{ $keys }}{{- else if .Values.cluster.enabled -}}memory{{- else -}}database{{- end -}}
{{- end -}}

{{/* What cannot work is refused here, with a sentence that says what to change. */}}
{{- define "watchword.check" -}}
{{- if not .Values.server.public_url -}}
{{- fail "server.public_url is needed: the URL under which clients reach the service, such as https://auth.example.com" -}}
{{- end -}}
{{- if not .Values.cluster.enabled -}}
{{- if .Values.autoscaling.enabled -}}
{{- fail "autoscaling.enabled needs cluster.enabled: replicas that do not know each other refuse each other's tokens" -}}
{{- end -}}
{{- if gt (int .Values.server.replicaCount) 1 -}}
{{- fail "server.replicaCount above 1 needs cluster.enabled: replicas that do not know each other refuse each other's tokens" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.server.tls.mutual (not .Values.server.tls.secretName) -}}
{{- fail "server.tls.mutual needs server.tls.secretName" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- fail "autoscaling.maxReplicas is less than autoscaling.minReplicas" -}}
{{- end -}}
{{- if hasPrefix "sqlite:" .Values.secrets.DATABASE_URL.value -}}
{{- fail "secrets.DATABASE_URL: SQLite would be a file in a pod, and gone with it; use postgres:// or mysql://" -}}
{{- end -}}
{{- end -}}

{{/*
The secrets, as JSON: for each the variable, the Secret and the key. A secret counts if the
settings need it, if it is given by itself, or if existingSecretKeys names it.
*/}}
{{- define "watchword.secrets" -}}
{{- $keys := include "watchword.tokenKeys" . -}}
{{- $needed := dict
  "DATABASE_URL" true
  "REDIS_URL" .Values.redis.enabled
  "AUTH_CLUSTER_SECRET" .Values.cluster.enabled
  "AUTH_STORAGE_KEY" (or (eq $keys "database") (and (not .Values.cluster.enabled) (or (eq $keys "pkcs11") (eq $keys "remote"))))
  "AUTH_JWT_SECRET" (eq $keys "secret")
  "PKCS11_PIN" (eq $keys "pkcs11")
  "AUTH_SIGNER_TOKEN" (eq $keys "remote") -}}
{{- $list := list -}}
{{- range $name, $secret := omit .Values.secrets "existingSecret" "existingSecretKeys" "as" -}}
{{- $wanted := or (get $needed $name) (has $name $.Values.secrets.existingSecretKeys) -}}
{{- if and $secret.value $secret.secretName -}}
{{- fail (printf "secrets.%s has a value and a secretName; keep one of the two" $name) -}}
{{- else if $secret.secretName -}}
{{- $list = append $list (dict "variable" $name "secret" $secret.secretName "key" (default $name $secret.secretKey)) -}}
{{- else if $secret.value -}}
{{- $list = append $list (dict "variable" $name "secret" (include "watchword.fullname" $) "key" $name) -}}
{{- else if and $wanted $.Values.secrets.existingSecret -}}
{{- $list = append $list (dict "variable" $name "secret" $.Values.secrets.existingSecret "key" (default $name $secret.secretKey)) -}}
{{- else if $wanted -}}
{{- fail (printf "the secret %s is needed: set secrets.existingSecret, secrets.%s.secretName, or secrets.%s.value" $name $name $name) -}}
{{- end -}}
{{- end -}}
{{- toJson $list -}}
{{- end -}}

{{/* watchword.yaml, without secrets and without what differs from pod to pod. */}}
{{- define "watchword.config" -}}
{{- $server := omit .Values.server "replicaCount" "tls" -}}
{{- $_ := set $server "address" ":8080" -}}
{{- $_ := set $server "metrics_address" ":9090" -}}
{{- $cluster := omit .Values.cluster "advertise_url" -}}
{{- if .Values.cluster.enabled -}}
{{- if and (has .Values.cluster.discovery (list "kubernetes" "dns")) (not .Values.cluster.service_url) -}}
{{- $name := printf "%s-peers.%s" (include "watchword.fullname" .) .Release.Namespace -}}
{{- $_ := set $cluster "service_url" (printf "%s://%s.svc:8080" (include "watchword.scheme" .) $name) -}}
{{- end -}}
{{- end -}}
{{- if .Values.server.tls.secretName -}}
{{- $_ := set $server "tls" (dict "cert_file" "/etc/watchword/tls/tls.crt" "key_file" "/etc/watchword/tls/tls.key") -}}
{{- if .Values.server.tls.mutual -}}
{{- range $setting, $file := dict "ca_file" "ca.crt" "cert_file" "tls.crt" "key_file" "tls.key" -}}
{{- if not (get $cluster $setting) -}}
{{- $_ := set $cluster $setting (printf "/etc/watchword/tls/%s" $file) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not .Values.cluster.enabled -}}
{{- $cluster = dict "enabled" false -}}
{{- end -}}
{{- $sections := dict "server" $server "cluster" $cluster "database" .Values.database "redis" (omit .Values.redis "enabled") -}}
{{- $config := dict -}}
{{- range $section, $settings := $sections -}}
{{- $given := dict -}}
{{- range $setting, $value := $settings -}}
{{- if or $value (kindIs "bool" $value) -}}
{{- $_ := set $given $setting $value -}}
{{- end -}}
{{- end -}}
{{- if $given -}}
{{- $_ := set $config $section $given -}}
{{- end -}}
{{- end -}}
{{- range $section, $settings := .Values.config -}}
{{- if $settings -}}
{{- $_ := set $config $section $settings -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The variables that carry secrets. */}}
{{- define "watchword.secretEnv" -}}
{{- range $s := fromJsonArray (include "watchword.secrets" .) }}
{{- if eq $.Values.secrets.as "files" }}
- name: {{ $s.variable }}_FILE
  value: /etc/watchword/secrets/{{ $s.variable }}
{{- else }}
- name: {{ $s.variable }}
  valueFrom:
    secretKeyRef:
      name: {{ $s.secret }}
      key: {{ $s.key }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The variables of a container: of a replica, or of a command beside them. */}}
{{- define "watchword.env" -}}
- name: WATCHWORD_CONFIG
  value: /etc/watchword/config/watchword.yaml
{{- include "watchword.secretEnv" . }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "watchword.volumeMounts" -}}
- name: config
  mountPath: /etc/watchword/config
  readOnly: true
{{- if eq .Values.secrets.as "files" }}
- name: secrets
  mountPath: /etc/watchword/secrets
  readOnly: true
{{- end }}
{{- if .Values.server.tls.secretName }}
- name: tls
  mountPath: /etc/watchword/tls
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "watchword.secretVolume" -}}
- name: secrets
  projected:
    defaultMode: 0400
    sources:
{{- range $s := fromJsonArray (include "watchword.secrets" .) }}
      - secret:
          name: {{ $s.secret }}
          items:
            - key: {{ $s.key }}
              path: {{ $s.variable }}
{{- end }}
{{- end -}}

{{- define "watchword.volumes" -}}
- name: config
  configMap:
    name: {{ include "watchword.fullname" . }}
{{- if eq .Values.secrets.as "files" }}
{{ include "watchword.secretVolume" . }}
{{- end }}
{{- if .Values.server.tls.secretName }}
- name: tls
  secret:
    secretName: {{ .Values.server.tls.secretName }}
    defaultMode: 0400
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What a pod and its container may not do. */}}
{{- define "watchword.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "watchword.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
