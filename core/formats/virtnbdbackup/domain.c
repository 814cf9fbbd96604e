#include "formats/virtnbdbackup/domain.h"

#include <errno.h>
#include <string.h>

#include "util/xml.h"

#define NAME_BEGIN "vmconfig."
#define NAME_END ".xml"
#define CHECKPOINTS_END ".cpt" /* DOMAIN.cpt lists the checkpoints of a chain */

bool domain_name_parse(const char *name, const char **ret_ident, size_t *ret_length) {
        size_t length = strlen(name), around = strlen(NAME_BEGIN) + strlen(NAME_END);

        if (length <= around || strncmp(name, NAME_BEGIN, strlen(NAME_BEGIN)) != 0 ||
            strcmp(name + length - strlen(NAME_END), NAME_END) != 0)
                return false;
        *ret_ident = name + strlen(NAME_BEGIN);
        *ret_length = length - around;
        return true;
}

/* The first definition in the place that can be read; NULL where there is none. */
static int read_definition(const Survey *survey, size_t place, xmlDoc **ret) {
        for (size_t i = 0; i < survey->item_count; i++) {
                const Item *item = &survey->items[i];
                CLEANUP(freep) char *text = NULL;
                const char *ident;
                size_t length;
                int rc;

                if (item->place != place || !domain_name_parse(item->name, &ident, &length) || item->length > XML_TEXT_LIMIT)
                        continue;
                rc = item_text(survey, item, XML_TEXT_LIMIT, &text, NULL);
                if (rc == 0)
                        rc = xml_parse(text, "domain", "definition", ret, NULL);
                if (rc == 0 || rc == -ENOMEM)
                        return rc;
        }
        return 0;
}

/* From the name of the list of checkpoints. */
static int name_by_checkpoints(const Survey *survey, size_t number, Place *place) {
        for (size_t i = 0; i < survey->item_count && !place->vm; i++) {
                const Item *item = &survey->items[i];
                size_t length = strlen(item->name), end = strlen(CHECKPOINTS_END);

                if (item->place != number || length <= end || strcmp(item->name + length - end, CHECKPOINTS_END) != 0)
                        continue;
                place->vm = strndup(item->name, length - end);
                if (!place->vm)
                        return -ENOMEM;
        }
        return 0;
}

int domains_find(Survey *survey) {
        int rc = 0;

        for (size_t i = 0; rc >= 0 && i < survey->place_count; i++) {
                Place *place = &survey->places[i];
                CLEANUP(xml_free_docp) xmlDoc *document = NULL;

                rc = read_definition(survey, i, &document);
                if (document) {
                        const xmlNode *root = xmlDocGetRootElement(document);

                        place->vm = xml_content(xml_child(root, "name"));
                        place->vm_uuid = xml_content(xml_child(root, "uuid"));
                }
                if (rc >= 0 && !place->vm)
                        rc = name_by_checkpoints(survey, i, place);
        }
        return rc;
}

static int add_base_name(const xmlNode *node, Strings *names) {
        CLEANUP(freep) char *path = xml_content(node);
        const char *slash = path ? strrchr(path, '/') : NULL;

        return slash && slash[1] ? strings_add(names, slash + 1) : 0;
}

int domain_boot_files(const Survey *survey, size_t place, Strings *ret) {
        static const char *const elements[] = { "loader", "nvram", "kernel", "initrd" };
        CLEANUP(xml_free_docp) xmlDoc *document = NULL;
        CLEANUP(strings_free) Strings names = { 0 };
        int rc = read_definition(survey, place, &document);

        for (size_t i = 0; rc >= 0 && document && i < sizeof elements / sizeof *elements; i++)
                rc = add_base_name(xml_child(xml_child(xmlDocGetRootElement(document), "os"), elements[i]), &names);
        if (rc < 0)
                return rc;
        *ret = names;
        names = (Strings) { 0 };
        return 0;
}
