"""Thin assemblies of the parts, one for each paper."""
