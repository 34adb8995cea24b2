"""The benchmark: gateway and peers as processes of their own, one cheap load generator, figures pair by pair."""
