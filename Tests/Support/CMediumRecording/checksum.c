#include "CMediumRecording.h"

#include <string.h>

/// FNV-1a over words, folded so that high bits reach low ones.
uint64_t recording_checksum(const uint8_t *bytes) {
    uint64_t sum = 0xcbf29ce484222325u;
    for (int at = 0; at < RECORDING_BLOCK_BYTES; at += 8) {
        uint64_t word;
        memcpy(&word, bytes + at, sizeof word);
        sum = (sum ^ word) * 0x100000001b3u;
        sum ^= sum >> 29;
    }
    return sum | 2;
}
