#include "formats/virtnbdbackup/data-name.h"

#include <string.h>

#define DATA ".data"
#define PARTIAL ".partial"

static bool ends_with(const char *text, size_t length, const char *end) {
        size_t end_length = strlen(end);

        return length >= end_length && memcmp(text + length - end_length, end, end_length) == 0;
}

bool data_name_parse(const char *name, DataName *ret) {
        static const struct {
                const char *text;
                NameLevel level;
                bool has_ident;
        } levels[] = {
                { "full", NAME_FULL, false },
                { "copy", NAME_COPY, false },
                { "inc.", NAME_INCREMENT, true },
                { "diff.", NAME_DIFFERENTIAL, true },
        };
        const char *dot = strchr(name, '.'), *level;
        size_t length = strlen(name), rest;

        *ret = (DataName) { .partial = ends_with(name, length, PARTIAL) };
        if (ret->partial)
                length -= strlen(PARTIAL);
        if (!dot || dot == name || !ends_with(name, length, DATA))
                return false;
        length -= strlen(DATA);
        level = dot + 1;
        if (level >= name + length)
                return false;
        rest = (size_t) (name + length - level);
        ret->device_length = (size_t) (dot - name);
        for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
                size_t text = strlen(levels[i].text);

                if (rest < text || memcmp(level, levels[i].text, text) != 0 || (rest > text) != levels[i].has_ident)
                        continue;
                ret->level = levels[i].level;
                if (levels[i].has_ident) {
                        ret->ident = level + text;
                        ret->ident_length = rest - text;
                }
                return true;
        }
        return false;
}
