"""The transactional shell: loads, lets the domain decide, applies."""
