/* core/util/xml.h - XML from a hypervisor, read with libxml2 so that nothing outside the text is ever looked at.
 *
 * A text with a document type (and so with entities) is refused, and one that is longer than XML_TEXT_LIMIT. */
#pragma once

#include <stdbool.h>

#include "libraries/libxml2-functions.h"
#include "util/cleanup.h"
#include "util/reason.h"

#define XML_TEXT_LIMIT (16u << 20) /* bytes */

static inline void xml_free_docp(xmlDoc **doc) {
        if (*doc)
                xmlFreeDoc(*doc);
}

/* what: "domain XML", for the reason. -EBADMSG where it is no such document with that root element. */
int xml_parse(const char *text, const char *root, const char *what, xmlDoc **ret, Reason *reterr);

/* First child element of that name, or NULL; node may be NULL. xml_next(): the next sibling of the same name. */
xmlNode *xml_child(const xmlNode *node, const char *name);
xmlNode *xml_next(const xmlNode *node);

/* Copies, NULL where there is none (or no memory); node may be NULL. The caller frees with free(). */
char *xml_attribute(const xmlNode *node, const char *name);
char *xml_content(const xmlNode *node);
bool xml_attribute_is(const xmlNode *node, const char *name, const char *value);

/* The document as text. The caller frees *ret. */
int xml_dump(xmlDoc *doc, char **ret, Reason *reterr);

/* Adds an element, sets an attribute, replaces all that is in an element; whatever is in the texts, it is escaped. -ENOMEM,
 * -EINVAL (not UTF-8). They do nothing once *rc is negative, so that a document can be built in one go. */
xmlNode *xml_add(xmlNode *parent, const char *name, const char *content, int *rc);
void xml_set(xmlNode *node, const char *name, const char *value, int *rc);
void xml_set_content(xmlNode *node, const char *content, int *rc);

/* Takes away an attribute, an element, all child elements of a name; nothing where there is none. node may be NULL. */
void xml_unset(xmlNode *node, const char *name);
void xml_remove(xmlNode *node);
void xml_remove_children(xmlNode *node, const char *name);
