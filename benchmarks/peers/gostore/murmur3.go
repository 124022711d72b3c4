package main

import (
	"encoding/binary"
	"math/bits"
)

// murmur3 is Appleby's MurmurHash3, the 32-bit variant for x86, with seed 0.
func murmur3(data []byte) uint32 {
	var hash uint32
	length := uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		hash ^= scramble(binary.LittleEndian.Uint32(data))
		hash = bits.RotateLeft32(hash, 13)*5 + 0xe6546b64
	}
	var tail uint32
	for index := len(data) - 1; index >= 0; index-- {
		tail = tail<<8 | uint32(data[index])
	}
	hash ^= scramble(tail) ^ length
	hash = (hash ^ hash>>16) * 0x85ebca6b
	hash = (hash ^ hash>>13) * 0xc2b2ae35
	return hash ^ hash>>16
}

func scramble(block uint32) uint32 {
	return bits.RotateLeft32(block*0xcc9e2d51, 15) * 0x1b873593
}
