"""Serves checks over HTTP: for Envoy's `http_service`, and for nginx, Traefik and Caddy."""
