"""Texts spoken outside of conversations: one synthesis for all who ask for the same."""
