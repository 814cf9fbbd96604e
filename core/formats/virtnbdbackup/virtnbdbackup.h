/* core/formats/virtnbdbackup/virtnbdbackup.h - what virtnbdbackup writes: directories and zip files of streams.
 *
 * A stream is the backup of one disk (frame.h, metadata.h, trailer.h). One directory, with the zip files in it, holds one
 * chain or several; they are linked by the metadata alone. A layer's member is the name in a zip file, which may also be a
 * file that is kept beside the streams. */
#pragma once

#include "formats/byte-store.h"
#include "formats/found.h"
#include "formats/layer.h"
#include "formats/virtnbdbackup/member.h"

/* The bytes of a stream, of a raw copy or of what is kept beside them: the file's, or those of the member of a zip file.
 * ret_crc: what the zip file says of that, where it is one. The caller frees *ret. */
int virtnbdbackup_open_bytes(LayerStore *store, const LayerLocation *location, Member *ret_member, ByteStore **ret,
                             uint32_t *ret_crc, Reason *reterr);
int virtnbdbackup_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr);
int virtnbdbackup_find(FoundDirectory *directory, Reason *reterr);
/* Against the Adler-32 beside a stream ("STREAM.chksum", of 1.9.40 and later), or the CRC that a zip file
 * has of its members. */
int virtnbdbackup_check(LayerStore *store, const LayerLocation *location, const LayerCheck *check, Reason *reterr);
