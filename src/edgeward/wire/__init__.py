"""What travels between devices and who works there: messages, codecs, transports, hosts."""
