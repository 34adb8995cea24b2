"""Tests of the conformance kit, and of clients by it."""
