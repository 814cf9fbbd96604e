#include "machine/definition-private.h"

#include <stdio.h>
#include <string.h>

#include "codec/checksum.h"

#define AGENT_CHANNEL "org.qemu.guest_agent.0"
#define LENGTH(array) (sizeof(array) / sizeof *(array))

static bool is_one_of(const char *text, const char *const *list, size_t count) {
        for (size_t i = 0; i < count; i++)
                if (text && strcmp(text, list[i]) == 0)
                        return true;
        return false;
}

/* Calls it for each device of that kind; it may remove the device. */
static void each(Rewrite *rewrite, const char *kind, void (*rework)(Rewrite *rewrite, xmlNode *node)) {
        xmlNode *next;

        for (xmlNode *node = xml_child(rewrite->devices, kind); node; node = next) {
                next = xml_next(node);
                rework(rewrite, node);
        }
}

static void rewrite_emulator(Rewrite *rewrite) {
        xmlNode *emulator = xml_child(rewrite->devices, "emulator");
        CLEANUP(freep) char *path = xml_content(emulator);

        if (!emulator || rewrite_exists(path))
                return;
        rewrite_note(rewrite, "its emulator %s is not on this host: libvirt chooses another", path ?: "");
        xml_remove(emulator);
}

/* ---- network ---- */

/* The vendor's part of the address stays; the other is made of it and the VM's UUID. */
static void renew_address(Rewrite *rewrite, xmlNode *node) {
        xmlNode *mac = xml_child(node, "mac");
        CLEANUP(freep) char *old = xml_attribute(mac, "address");
        char seed[UUID_STR_LEN + 32], address[32];
        unsigned vendor[3] = { 0x52, 0x54, 0x00 };
        uint64_t sum;

        if (!mac || !is_new(rewrite))
                return;
        if (!old || sscanf(old, "%2x:%2x:%2x:", &vendor[0], &vendor[1], &vendor[2]) != 3)
                memcpy(vendor, (unsigned[]) { 0x52, 0x54, 0x00 }, sizeof vendor);
        snprintf(seed, sizeof seed, "%s %.30s", rewrite->wish->uuid, old ?: "");
        sum = checksum(seed, strlen(seed));
        snprintf(address, sizeof address, "%02x:%02x:%02x:%02x:%02x:%02x", vendor[0], vendor[1], vendor[2],
                 (unsigned) (sum & 0xff), (unsigned) (sum >> 8 & 0xff), (unsigned) (sum >> 16 & 0xff));
        xml_set(mac, "address", address, &rewrite->rc);
}

/* The guest sees the card it had, with the cable pulled; what was at the other end need not be on this host. */
static void unplug(Rewrite *rewrite, xmlNode *node) {
        static const char *const stay[] = { "mac", "model", "address", "alias", "boot", "rom", "acpi" };
        xmlNode *next, *link;

        for (xmlNode *child = node->children; child; child = next) {
                next = child->next;
                if (!is_one_of((const char *) child->name, stay, LENGTH(stay)))
                        xml_remove(child);
        }
        if (xml_attribute_is(node, "type", "hostdev"))
                xml_remove_children(node, "address"); /* of a card of the host's */
        xml_set(node, "type", "user", &rewrite->rc);
        xml_unset(node, "managed");
        xml_unset(node, "trustGuestRxFilters");
        link = xml_add(node, "link", NULL, &rewrite->rc);
        xml_set(link, "state", "down", &rewrite->rc);
}

static void rewrite_interface(Rewrite *rewrite, xmlNode *node) {
        renew_address(rewrite, node);
        if (is_new(rewrite)) {
                xml_remove_children(node, "target"); /* the host's end of it has a name of its own */
                xml_unset(xml_child(xml_child(node, "virtualport"), "parameters"), "interfaceid");
        }
        if (rewrite->wish->unplugged || rewrite->wish->isolated)
                unplug(rewrite, node);
}

/* ---- lines that lead to files, sockets and ports of the host ---- */

static void to_terminal(Rewrite *rewrite, xmlNode *node) {
        xml_remove_children(node, "source");
        xml_remove_children(node, "protocol");
        xml_remove_children(node, "log");
        xml_set(node, "type", "pty", &rewrite->rc);
}

/* Whether the directory of the path is here. */
static bool has_directory(const char *path) {
        CLEANUP(freep) char *directory = path ? strdup(path) : NULL;
        char *slash = directory ? strrchr(directory, '/') : NULL;

        if (!slash)
                return false;
        slash[slash == directory] = 0;
        return rewrite_exists(directory);
}

static void rewrite_line(Rewrite *rewrite, xmlNode *node) {
        static const char *const host[] = { "file", "dev", "pipe", "tcp", "udp", "unix" };
        static const char *const paths[] = { "file", "unix" };
        CLEANUP(freep) char *type = xml_attribute(node, "type"), *path = xml_attribute(xml_child(node, "source"), "path");

        if (!is_one_of(type, host, LENGTH(host)))
                return;
        if (!is_new(rewrite) && !rewrite->wish->isolated && (!is_one_of(type, paths, LENGTH(paths)) || has_directory(path)))
                return;
        if (!rewrite->wish->isolated)
                rewrite_note(rewrite, "its %s line no longer leads to %s: 'virsh console' opens it",
                             (const char *) node->name, path ?: "where it did");
        to_terminal(rewrite, node);
}

static void rewrite_channel(Rewrite *rewrite, xmlNode *node) {
        if (!xml_attribute_is(node, "type", "unix") || !xml_attribute_is(xml_child(node, "target"), "type", "virtio")) {
                rewrite_line(rewrite, node);
                return;
        }
        xml_remove_children(node, "source"); /* libvirt chooses a path for each VM */
        xml_unset(xml_child(node, "target"), "state");
}

/* The first serial line again, as libvirt adds it by itself. */
static void drop_double(Rewrite *rewrite, xmlNode *node) {
        const xmlNode *target = xml_child(node, "target");

        if (xml_child(rewrite->devices, "serial") && (!target || xml_attribute_is(target, "type", "serial")))
                xml_remove(node);
}

/* Where none is installed in the guest nobody answers. */
static void place_agent(Rewrite *rewrite) {
        xmlNode *channel = xml_child(rewrite->devices, "channel"), *child;

        while (channel && !xml_attribute_is(xml_child(channel, "target"), "name", AGENT_CHANNEL))
                channel = xml_next(channel);
        if (!channel) {
                channel = xml_add(rewrite->devices, "channel", NULL, &rewrite->rc);
                child = xml_add(channel, "target", NULL, &rewrite->rc);
                xml_set(child, "type", "virtio", &rewrite->rc);
                xml_set(child, "name", AGENT_CHANNEL, &rewrite->rc);
        }
        xml_set(channel, "type", "unix", &rewrite->rc);
        xml_remove_children(channel, "source");
        child = xml_add(channel, "source", NULL, &rewrite->rc);
        xml_set(child, "mode", "bind", &rewrite->rc);
        xml_set(child, "path", rewrite->wish->agent, &rewrite->rc);
}

static void rewrite_lines(Rewrite *rewrite) {
        const char *console = rewrite->wish->console;
        xmlNode *serial, *source;

        each(rewrite, "console", drop_double);
        each(rewrite, "serial", rewrite_line);
        each(rewrite, "parallel", rewrite_line);
        each(rewrite, "console", rewrite_line);
        each(rewrite, "channel", rewrite_channel);
        if (rewrite->wish->agent)
                place_agent(rewrite);
        if (!console)
                return;
        serial = xml_child(rewrite->devices, "serial") ?: xml_add(rewrite->devices, "serial", NULL, &rewrite->rc);
        xml_remove_children(serial, "source");
        xml_set(serial, "type", "unix", &rewrite->rc);
        source = xml_add(serial, "source", NULL, &rewrite->rc);
        xml_set(source, "mode", "connect", &rewrite->rc);
        xml_set(source, "path", console, &rewrite->rc);
}

/* ---- screens ---- */

static void rewrite_screen(Rewrite *rewrite, xmlNode *node) {
        static const char *const places[] = { "port", "tlsPort", "websocket", "socket", "listen" };
        bool has_port = xml_attribute_is(node, "type", "vnc") || xml_attribute_is(node, "type", "spice");
        CLEANUP(freep) char *listen = xml_attribute(node, "listen");
        CLEANUP(freep) char *graphics = xml_attribute(xml_child(node, "gl"), "rendernode");

        if (rewrite->wish->isolated &&
            (xml_attribute_is(node, "type", "sdl") || xml_attribute_is(node, "type", "desktop"))) {
                xml_remove(node);
                return;
        }
        if (graphics && !rewrite_exists(graphics))
                xml_unset(xml_child(node, "gl"), "rendernode");
        if (listen && strncmp(listen, "127.", 4) != 0 && strcmp(listen, "::1") != 0 && !rewrite->wish->isolated)
                rewrite_note(rewrite, "its screen can be seen at %s without a password, where it had one: "
                                      "passwords are not kept with points", listen);
        if (!is_new(rewrite) || !has_port)
                return;
        for (size_t i = 0; i < LENGTH(places) - (rewrite->wish->isolated ? 0 : 1); i++)
                xml_unset(node, places[i]);
        xml_set(node, "autoport", "yes", &rewrite->rc);
        for (xmlNode *child = xml_child(node, "listen"); child; child = xml_next(child))
                xml_unset(child, "socket");
        if (rewrite->wish->isolated)
                xml_remove_children(node, "listen"); /* then it is this host alone */
}

/* ---- what is shared with the host ---- */

static void say_and_remove(Rewrite *rewrite, xmlNode *node, const char *what, const char *why) {
        rewrite_note(rewrite, "the VM is without %s: %s", what, why);
        xml_remove(node);
}

static void rewrite_folder(Rewrite *rewrite, xmlNode *node) {
        xmlNode *source = xml_child(node, "source");
        CLEANUP(freep) char *path = xml_attribute(source, "dir") ?: xml_attribute(source, "socket");

        if (rewrite->wish->isolated)
                say_and_remove(rewrite, node, "the folder that it shared with its host", "it is a test");
        else if (path && !rewrite_exists(path))
                say_and_remove(rewrite, node, "a folder that it shared with its host", "this host does not have it");
}

static void rewrite_hostdev(Rewrite *rewrite, xmlNode *node) {
        if (rewrite->wish->isolated)
                say_and_remove(rewrite, node, "a device of its host's", "it is a test");
}

static void rewrite_memory(Rewrite *rewrite, xmlNode *node) {
        if (xml_child(xml_child(node, "source"), "path") && (is_new(rewrite) || rewrite->wish->isolated))
                say_and_remove(rewrite, node, "memory that its host kept in a file", "that is not in the point");
}

static void rewrite_tpm(Rewrite *rewrite, xmlNode *node) {
        xmlNode *backend = xml_child(node, "backend");

        if (xml_attribute_is(backend, "type", "emulator"))
                xml_remove_children(backend, "source"); /* libvirt has a directory for each VM */
        else if (rewrite->wish->isolated)
                say_and_remove(rewrite, node, "its host's TPM", "it is a test");
}

static void rewrite_socket(Rewrite *rewrite, xmlNode *node) {
        xmlNode *cid = xml_child(node, "cid");

        if (!cid || !is_new(rewrite))
                return;
        xml_unset(cid, "address");
        xml_set(cid, "auto", "yes", &rewrite->rc);
}

static void rewrite_input(Rewrite *rewrite, xmlNode *node) {
        if (rewrite->wish->isolated && xml_child(node, "source"))
                xml_remove(node);
}

static void rewrite_redirection(Rewrite *rewrite, xmlNode *node) {
        if (rewrite->wish->isolated && !xml_attribute_is(node, "type", "spicevmc"))
                xml_remove(node);
}

static void rewrite_card(Rewrite *rewrite, xmlNode *node) {
        if (rewrite->wish->isolated && xml_attribute_is(node, "mode", "host"))
                xml_remove(node);
}

static void rewrite_random(Rewrite *rewrite, xmlNode *node) {
        xmlNode *backend = xml_child(node, "backend");
        CLEANUP(freep) char *path = xml_content(backend);

        if (xml_attribute_is(backend, "model", "random") && path && *path && !rewrite_exists(path))
                xml_set_content(backend, "/dev/urandom", &rewrite->rc);
}

static void rewrite_sound(Rewrite *rewrite, xmlNode *node) {
        if (!rewrite->wish->isolated || xml_attribute_is(node, "type", "spice"))
                return;
        xml_set_content(node, "", &rewrite->rc);
        xml_set(node, "type", "none", &rewrite->rc);
}

void rewrite_devices(Rewrite *rewrite) {
        static const struct {
                const char *kind;
                void (*rework)(Rewrite *rewrite, xmlNode *node);
        } kinds[] = {
                { "interface", rewrite_interface }, { "graphics", rewrite_screen },   { "filesystem", rewrite_folder },
                { "hostdev", rewrite_hostdev },     { "memory", rewrite_memory },     { "tpm", rewrite_tpm },
                { "vsock", rewrite_socket },        { "input", rewrite_input },       { "redirdev", rewrite_redirection },
                { "smartcard", rewrite_card },      { "rng", rewrite_random },        { "audio", rewrite_sound },
        };

        rewrite_emulator(rewrite);
        rewrite_lines(rewrite);
        for (size_t i = 0; i < LENGTH(kinds); i++)
                each(rewrite, kinds[i].kind, kinds[i].rework);
        /* Locks on the first VM's leases, memory that it shared with others. */
        if (is_new(rewrite))
                xml_remove_children(rewrite->devices, "lease");
        if (rewrite->wish->isolated)
                xml_remove_children(rewrite->devices, "shmem");
}
