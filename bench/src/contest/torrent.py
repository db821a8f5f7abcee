# One end of a transfer by libtorrent over plain TCP, with nobody to ask but the peers that are named.
#
#   send FILE TORRENT PORT       makes TORRENT of FILE, says "ready", and serves until it is killed
#   receive FOLDER TORRENT PORT PEER...   ends once the file is complete, checked and on its place
import os
import signal
import sys
import libtorrent as lt

role, place, torrent, port = sys.argv[1:5]
session = lt.session({
    "listen_interfaces": "127.0.0.1:" + port,
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    # All peers here have one address.
    "allow_multiple_connections_per_ip": True,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
})
if role == "send":
    if hasattr(lt, "list_files"):
        made = lt.create_torrent(lt.list_files(place), 0, lt.create_torrent.v1_only)
    else:
        files = lt.file_storage()
        lt.add_files(files, place)
        made = lt.create_torrent(files, 0, lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, os.path.dirname(place))
    with open(torrent, "wb") as out:
        out.write(lt.bencode(made.generate()))
    place = os.path.dirname(place)
wanted = lt.add_torrent_params()
wanted.ti = lt.torrent_info(torrent)
wanted.save_path = place
wanted.flags &= ~(lt.torrent_flags.paused | lt.torrent_flags.auto_managed)
if role == "send":
    wanted.flags |= lt.torrent_flags.seed_mode
wanted.peers = [("127.0.0.1", int(peer)) for peer in sys.argv[5:]]
handle = session.add_torrent(wanted)
if role == "send":
    while not session.is_listening():
        session.wait_for_alert(10)
        session.pop_alerts()
    print("ready", flush=True)
    signal.pause()
while True:
    session.wait_for_alert(1000)
    for alert in session.pop_alerts():
        if isinstance(alert, lt.torrent_finished_alert):
            # Written, not only received.
            handle.flush_cache()
        if isinstance(alert, lt.cache_flushed_alert):
            sys.stdout.flush()
            os._exit(0)
        if isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert)):
            sys.exit(alert.message())
