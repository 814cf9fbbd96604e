/* core/formats/virtnbdbackup/domain.h - the VM that a place's streams are of, from the definition kept beside them.
 *
 * Threads: one. */
#pragma once

#include "formats/virtnbdbackup/survey.h"
#include "util/strings.h"

/* Fills in vm and vm_uuid of each place, as far as anything there tells. -ENOMEM. */
int domains_find(Survey *survey);

/* The names of the files that a place's definition has the VM boot from, which a copy keeps under just these names. The
 * caller frees with strings_free(). -ENOMEM. */
int domain_boot_files(const Survey *survey, size_t place, Strings *ret);

/* Whether it is the name of a definition, "vmconfig.IDENT.xml"; *ret_ident points into it. */
bool domain_name_parse(const char *name, const char **ret_ident, size_t *ret_length);
