"""Typed configuration: schema, checks, and from the configuration to objects."""
