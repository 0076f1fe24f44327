"""Tables of any hospital: read as they are, columns recognised, labels, splits and boxes taken from them."""
