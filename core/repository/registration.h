/* core/repository/registration.h - vm.json: which VM a directory is of, and where its captures read from. */
#pragma once

#include <stdint.h>
#include <uuid/uuid.h>

#include "util/sealed-json.h"
#include "util/strings.h"

#define REGISTRATION_FILE "vm.json"

typedef struct Registration {
        char uuid[UUID_STR_LEN]; /* in lower case */
        uint32_t serial;
        char *source;            /* NULL: forgotten */
        Strings include, exclude; /* of disks */
} Registration;

/* Checked, the name in it too. -EBADMSG, -ENOTSUP, -ENOENT … with the words for vm_damage(). */
int registration_read(int vm_fd, const char *vm, Registration *ret, Reason *reterr);
/* Replaces the file. */
int registration_write(int dir_fd, const char *path, const char *vm, const Registration *registration, Reason *reterr);
void registration_clear(Registration *registration);
