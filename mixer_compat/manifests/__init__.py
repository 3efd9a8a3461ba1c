"""Kubernetes objects that tell an Istio Mixer about the adapter."""
