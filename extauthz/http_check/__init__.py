"""The door for proxies that ask over HTTP: Envoy's HTTP service, nginx, Traefik and Caddy."""
