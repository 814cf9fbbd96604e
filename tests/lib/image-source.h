/* tests/lib/image-source.h - a source of qcow2 images that no VM runs on: "images:///PATH,/PATH…" are vda, vdb, ….
 *
 * Checkpoints are real persistent bitmaps in the images (qemu-img bitmap), read through a real server (qemu-nbd -B), so
 * that real dirty bitmaps are tested without a VM. What writes to the images (qemu-io) does so between captures. */
#pragma once

void image_source_register(void);
