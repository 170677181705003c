package slots

const openFlags = 0
