#include "formats/qcow2/image-name.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "util/cleanup.h"
#include "util/text.h"

static const char *const extensions[] = { ".qcow2", ".qcow", ".img", ".raw", ".qc2" };

void image_name_clear(ImageName *name) {
        free(name->disk);
        free(name->label);
        free(name->checkpoint);
        free(name->series);
        *name = (ImageName) { 0 };
}

/* How long the name is without an extension that images have. */
size_t image_stem_length(const char *name) {
        const char *dot = strrchr(name, '.');

        for (size_t i = 0; dot && dot > name && i < sizeof extensions / sizeof *extensions; i++)
                if (strcasecmp(dot, extensions[i]) == 0)
                        return (size_t) (dot - name);
        return strlen(name);
}

/* count digits as a number; false where there are others. */
static bool take_digits(const char **at, size_t count, int *ret) {
        int value = 0;

        for (size_t i = 0; i < count; i++, (*at)++) {
                if (!isdigit((unsigned char) **at))
                        return false;
                value = value * 10 + (**at - '0');
        }
        *ret = value;
        return true;
}

/* A UTC time in this form: each letter of YmdHMS stands for the digits of that, all else for itself. */
static bool take_time(const char **at, const char *form, struct timespec *ret) {
        struct tm tm = { 0 };

        for (; *form; form++) {
                int *part = *form == 'Y'   ? &tm.tm_year
                            : *form == 'm' ? &tm.tm_mon
                            : *form == 'd' ? &tm.tm_mday
                            : *form == 'H' ? &tm.tm_hour
                            : *form == 'M' ? &tm.tm_min
                            : *form == 'S' ? &tm.tm_sec
                                           : NULL;

                if (part ? !take_digits(at, *form == 'Y' ? 4 : 2, part) : *(*at)++ != *form)
                        return false;
        }
        tm.tm_year -= 1900;
        tm.tm_mon--;
        *ret = (struct timespec) { .tv_sec = timegm(&tm) };
        return true;
}

/* The part up to the next dot, which is passed; NULL where there is none, or no memory. */
static char *take_part(const char **at) {
        const char *dot = strchr(*at, '.');
        char *part = dot && dot > *at ? strndup(*at, (size_t) (dot - *at)) : NULL;

        if (part)
                *at = dot + 1;
        return part;
}

/* 1; 0 where the name is another one. */
static int parse_ovirt(const char *name, ImageName *ret) {
        CLEANUP(image_name_clear) ImageName parsed = { 0 };
        const char *at = name;

        if (!take_time(&at, "YmdHMS.", &parsed.time))
                return 0;
        parsed.checkpoint = take_part(&at);
        parsed.disk = parsed.checkpoint ? take_part(&at) : NULL;
        if (!parsed.disk || (strcmp(at, "full.qcow2") != 0 && strcmp(at, "incremental.qcow2") != 0))
                return 0;
        parsed.incremental = *at == 'i';
        if (text_format(&parsed.label, "%.14s.%s", name, parsed.checkpoint) < 0)
                return -ENOMEM;
        *ret = parsed;
        parsed = (ImageName) { 0 };
        return 1;
}

/* Seconds of this age: ten digits. */
static time_t epoch_of(const char *text) {
        return strlen(text) == 10 && strspn(text, "0123456789") == 10 ? (time_t) strtoll(text, NULL, 10) : 0;
}

static int parse_push(const char *name, ImageName *ret) {
        CLEANUP(image_name_clear) ImageName parsed = { 0 };
        const char *dot = strrchr(name, '.');
        CLEANUP(freep) char *image = dot ? strndup(name, (size_t) (dot - name)) : NULL;
        size_t length = image ? image_stem_length(image) : 0;

        if (!dot)
                return 0;
        if (!image)
                return -ENOMEM;
        if (!image[length] || !dot[1] || image_stem_length(name) < strlen(name))
                return 0;
        parsed.time.tv_sec = epoch_of(dot + 1);
        parsed.disk = strndup(image, length);
        parsed.label = strdup(dot + 1);
        parsed.checkpoint = parsed.time.tv_sec ? NULL : strdup(dot + 1);
        parsed.series = STEAL_PTR(image);
        if (!parsed.disk || !parsed.label || (!parsed.time.tv_sec && !parsed.checkpoint))
                return -ENOMEM;
        *ret = parsed;
        parsed = (ImageName) { 0 };
        return 1;
}

static int parse_qmpbackup(const char *name, ImageName *ret) {
        static const char *const levels[] = { "FULL-", "INC-", "COPY-" };
        CLEANUP(image_name_clear) ImageName parsed = { 0 };
        size_t stem = image_stem_length(name), level = 0;
        char seconds[11] = "";

        while (level < 3 && strncmp(name, levels[level], strlen(levels[level])) != 0)
                level++;
        if (level == 3)
                return 0;
        name += strlen(levels[level]);
        stem -= strlen(levels[level]);
        if (stem < 10 || (stem > 10 && name[10] != '-'))
                return 0;
        memcpy(seconds, name, 10);
        parsed.time.tv_sec = epoch_of(seconds);
        if (parsed.time.tv_sec == 0)
                return 0;
        parsed.incremental = *levels[level] == 'I';
        parsed.label = strdup(seconds);
        parsed.series = strndup(name + 10, stem - 10);
        parsed.disk = stem > 11 ? strndup(name + 11, stem - 11) : NULL;
        if (!parsed.label || !parsed.series || (stem > 11 && !parsed.disk))
                return -ENOMEM;
        *ret = parsed;
        parsed = (ImageName) { 0 };
        return 1;
}

static int parse_export(const char *name, ImageName *ret) {
        CLEANUP(image_name_clear) ImageName parsed = { 0 };
        size_t stem = image_stem_length(name), start = stem;
        const char *at;
        int number;

        while (start > 0 && name[start - 1] != '.')
                start--;
        at = name + start;
        if (start < 2 || !take_time(&at, "Y-m-dTHMSZ", &parsed.time) ||
            (*at == '-' && (at++, !take_digits(&at, 2, &number))) || at != name + stem)
                return 0;
        parsed.disk = strndup(name, start - 1);
        parsed.label = strndup(name + start, stem - start);
        if (!parsed.disk || !parsed.label)
                return -ENOMEM;
        *ret = parsed;
        parsed = (ImageName) { 0 };
        return 1;
}

int image_name_parse(const char *name, ImageName *ret) {
        int rc = parse_ovirt(name, ret);

        if (rc == 0)
                rc = parse_export(name, ret);
        if (rc == 0)
                rc = parse_push(name, ret);
        if (rc == 0)
                rc = parse_qmpbackup(name, ret);
        if (rc == 0)
                *ret = (ImageName) { 0 };
        return rc < 0 ? rc : 0;
}
