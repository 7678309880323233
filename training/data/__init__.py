"""Samples and batches from prepared tables, each a function of (seed, epoch, index)."""
