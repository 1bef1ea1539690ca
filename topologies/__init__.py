"""Topology files, their schema, and the lab that brings them to life with the daemons of production."""
