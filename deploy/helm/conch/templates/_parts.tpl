{{/* Parts that several manifests share. */}}

{{- define "conch.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "conch.labels" -}}
app.kubernetes.io/name: conch
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Labels that select one component: (dict "root" . "component" "replica"). */}}
{{- define "conch.selector" -}}
app.kubernetes.io/name: conch
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "conch.image" -}}
{{ printf "%s:%s" .image (.root.Values.images.tag | default .root.Chart.AppVersion) | quote }}
{{- end }}

{{- define "conch.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "conch.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* resources with GPUs: (dict "resources" … "gpus" 1). */}}
{{- define "conch.resources" -}}
{{- $resources := deepCopy .resources }}
{{- if .gpus }}
{{- $_ := set $resources.limits "nvidia.com/gpu" .gpus }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/* Volumes of pods that write the state: ingest and the loop. */}}
{{- define "conch.homeVolumes" -}}
- name: settings
  configMap: {name: {{ include "conch.name" . }}}
- name: feedback-keys
  secret: {secretName: {{ .Values.secrets.feedbackKeys }}, defaultMode: 0440}
- name: state
  persistentVolumeClaim: {claimName: {{ include "conch.name" . }}-state}
- name: events
  persistentVolumeClaim: {claimName: {{ include "conch.name" . }}-events}
- name: scratch
  emptyDir: {}
- name: shared-memory
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.triton.sharedMemory }}}
{{- end }}

{{/* The keys of the loop lie beside the events: replicas read the state, and must not read them. */}}
{{- define "conch.homeMounts" -}}
- {name: settings, mountPath: /etc/conch, readOnly: true}
- {name: feedback-keys, mountPath: /etc/conch-keys, readOnly: true}
- {name: state, mountPath: /var/lib/conch}
- {name: events, mountPath: /var/lib/conch/feedback, subPath: feedback}
- {name: events, mountPath: /var/lib/conch/keys, subPath: keys}
- {name: scratch, mountPath: /tmp}
{{- end }}

{{/* What a pod of the loop is made of; its arguments follow: (dict "root" . "arguments" (list …)). */}}
{{- define "conch.loopPod" -}}
{{- $root := .root }}
restartPolicy: Never
automountServiceAccountToken: false
securityContext: {{- include "conch.podSecurity" $root | nindent 2 }}
# The SQLite file of the events has to be opened on one node: that of the ingester.
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "conch.selector" (dict "root" $root "component" "ingest") | nindent 12 }}
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: loop
    image: {{ include "conch.image" (dict "root" $root "image" $root.Values.images.trainer) }}
    imagePullPolicy: {{ $root.Values.images.pullPolicy }}
    command: [conch]
    args: {{- toYaml (concat .arguments (list "--config=/etc/conch/user.toml" "--config=/etc/conch/home.toml")) | nindent 6 }}
    securityContext: {{- include "conch.containerSecurity" $root | nindent 6 }}
    resources: {{- include "conch.resources" (dict "resources" $root.Values.loop.resources "gpus" $root.Values.loop.gpus) | nindent 6 }}
    volumeMounts: {{- include "conch.homeMounts" $root | nindent 6 }}
      - {name: shared-memory, mountPath: /dev/shm}
volumes: {{- include "conch.homeVolumes" $root | nindent 2 }}
{{- end }}
