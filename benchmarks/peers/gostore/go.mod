module gostore

go 1.18
