"""The explained network: layers, the part above a layer, chunks of memory, restored state."""
