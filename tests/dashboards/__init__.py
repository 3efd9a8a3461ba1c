"""The Grafana dashboards and Prometheus rules of ``istio/dashboards``: made, and tried."""
