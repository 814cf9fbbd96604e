/* core/formats/virtnbdbackup/data-name.h - what the name of a file tells: "DEVICE.LEVEL[.IDENT].data[.partial]". */
#pragma once

#include <stdbool.h>
#include <stddef.h>

typedef enum NameLevel { NAME_FULL, NAME_COPY, NAME_INCREMENT, NAME_DIFFERENTIAL } NameLevel;

typedef struct DataName {
        NameLevel level;
        size_t device_length; /* of the device, which the name begins with */
        const char *ident;    /* in the name: a checkpoint, or a time (differential); NULL: none */
        size_t ident_length;
        bool partial;
} DataName;

/* Whether it is the name of a disk's data. */
bool data_name_parse(const char *name, DataName *ret);
