"""From files to maps: the contract of data sets, readers, downloads, preprocessing."""
