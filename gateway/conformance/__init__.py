"""The conformance kit: a gateway that misbehaves by a script, and judges the client under test from outside."""
