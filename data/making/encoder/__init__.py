"""How the small encoder is trained and measured; ``data.making.make_encoder`` runs it."""
