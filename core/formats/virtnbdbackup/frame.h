/* core/formats/virtnbdbackup/frame.h - the headers of a stream's frames.
 *
 * A header is 40 bytes of text, "KIND START LENGTH\r\n" with two numbers of 16 hexadecimal digits. A stream is
 *     meta 0 LENGTH   JSON \r\n
 *     data START LENGTH   the payload \r\n      in ascending order, in bytes of the disk; LENGTH is what it is unpacked
 *     zero START LENGTH
 *     stop 0 0
 * and, where it is compressed, the sizes of its payloads as JSON \r\n and comp 0 LENGTH. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define FRAME_HEADER_LENGTH 40u
#define FRAME_END "\r\n" /* behind each payload */
#define FRAME_END_LENGTH 2u

typedef enum FrameKind { FRAME_META, FRAME_DATA, FRAME_ZERO, FRAME_STOP, FRAME_COMP } FrameKind;

typedef struct Frame {
        FrameKind kind;
        uint64_t start, length; /* bytes; not checked in any way */
} Frame;

/* Whether these FRAME_HEADER_LENGTH bytes are a header. */
bool frame_parse(const unsigned char *bytes, Frame *ret);
