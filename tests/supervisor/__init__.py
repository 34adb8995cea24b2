"""Tests of the parent process and of the command line."""
