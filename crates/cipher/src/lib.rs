//! Packet ciphers: seal and open runs of datagrams.
