/* fs/command-line/codec-option.h - --codec NAME[:LEVEL], of all commands that compress. */
#pragma once

#include "codec/codec.h"
#include "command-line/command.h"

#define CODEC_OPTION { "codec", 0, "NAME[:LEVEL]", "lz4 (default), zstd or none" }

/* "zstd:9". -1 where it is right, else the status to exit with. level 0: none was said. */
int codec_option_take(const Command *command, const char *text, const Codec **ret, int *ret_level);
