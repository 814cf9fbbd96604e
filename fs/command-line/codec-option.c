#include "command-line/codec-option.h"

#include <stdio.h>
#include <string.h>

#include "number.h"
#include "util/bytes.h"

int codec_option_take(const Command *command, const char *text, const Codec **ret, int *ret_level) {
        char name[16];
        size_t length = strcspn(text, ":");
        const Codec *codec;
        uint64_t level = 0;

        snprintf(name, sizeof name, "%.*s", (int) min_u64(length, sizeof name - 1), text);
        codec = codec_by_name(name);
        if (!codec || name[length])
                return command_misused(command, "no codec is called %.*s", (int) length, text);
        if (text[length] && codec->level_max == 0)
                return command_misused(command, "codec %s has no levels", name);
        if (text[length] &&
            (number_parse(text + length + 1, 10, (uint64_t) codec->level_max, &level) < 0 || level == 0))
                return command_misused(command, "a level of %s is a number from 1 to %d, not %s", name, codec->level_max,
                                       text + length + 1);
        *ret = codec;
        *ret_level = (int) level;
        return -1;
}
