"""Trained networks over volumes: prediction and export."""
