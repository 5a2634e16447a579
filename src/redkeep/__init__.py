"""Redkeep deploys and operates Redis and Valkey over SSH."""

__version__ = "0.1.0"
