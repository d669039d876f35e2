# What a reader of the Vault provider's walk-through types: a secret, a policy
# and a role in Vault; a service account, a class and a Deployment in Kubernetes.
set -eu

vault kv put secret/app username="admin" password="p4ssw0rd" >&2
vault policy write mycsipolicy - <<POLICY >&2
path "secret/data/app" {
  capabilities = ["read"]
}
POLICY
vault write auth/kubernetes/role/mycsirole \
  bound_service_account_names=mycsiserviceaccount \
  bound_service_account_namespaces=default \
  policies=mycsipolicy \
  ttl=20m >&2

kubectl create serviceaccount mycsiserviceaccount >&2
kubectl apply -f - <<CLASS >&2
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: mycsispc
spec:
  provider: vault
  parameters:
    roleName: mycsirole
    vaultAddress: http://openbao.openbao:8200
    objects: |
      - objectName: "myUsername"
        secretPath: "secret/data/app"
        secretKey: "username"
      - objectName: "myPassword"
        secretPath: "secret/data/app"
        secretKey: "password"
CLASS
kubectl apply -f - <<APP >&2
apiVersion: apps/v1
kind: Deployment
metadata:
  name: mycsiapp
  labels:
    app: mycsiapp
spec:
  selector:
    matchLabels:
      app: mycsiapp
  template:
    metadata:
      labels:
        app: mycsiapp
    spec:
      serviceAccountName: mycsiserviceaccount
      terminationGracePeriodSeconds: 1
      containers:
        - name: csiapp
          image: local/busybox:1
          command: [sleep, "3600"]
          volumeMounts:
            - name: appsecrets
              mountPath: "/mnt/csi"
              readOnly: true
      volumes:
        - name: appsecrets
          csi:
            driver: secrets-store.csi.k8s.io
            readOnly: true
            volumeAttributes:
              secretProviderClass: mycsispc
APP
kubectl rollout status deployment/mycsiapp --timeout=120s >&2

kubectl exec deploy/mycsiapp -- ls -l /mnt/csi
kubectl exec deploy/mycsiapp -- cat /mnt/csi/myUsername /mnt/csi/myPassword
